"""In which order the numbers of weights lie in memory."""

import torch
from torch import nn

__all__ = ["lay_channels_last"]


def lay_channels_last(module: nn.Module) -> None:
    """Give kernels of convolutions, and whatever else has four axes, the layout channels_last.

    `module.to(memory_format=torch.channels_last)` does the same, and stumbles over tensors of five
    axes, such as the turns of rotary positions.

    Args:
        module: Whose parameters and buffers are laid out anew, in place.
    """
    for tensor in (*module.parameters(), *module.buffers()):
        if tensor.dim() == 4:
            tensor.data = tensor.data.to(memory_format=torch.channels_last)
