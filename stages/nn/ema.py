"""Exponential moving average of a model's weights (Polyak & Juditsky 1992), warmed up.

    average <- d * average + (1 - d) * weight,   d = min(decay, (1 + t) / (10 + t))

Floating buffers (codebooks, running scales) are averaged with the weights they were learned with;
integer buffers (counts) are copied.

Differs: torch's `AveragedModel` averages either all buffers, integers included, or none.
"""

import copy

import torch
from torch import Tensor, nn

__all__ = ["WeightAverage"]


class WeightAverage:
    """Keeps the averaged twin of a module.

    Attributes:
        module: The twin, in evaluation mode, without gradients.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        """Move the average towards `module`, whose weights are those after `step` steps."""
        weight = 1.0 - min(self.decay, (1 + step) / (10 + step))
        average, current = self._tensors(self.module), self._tensors(module)
        floating = [name for name, tensor in current.items() if tensor.is_floating_point()]
        torch._foreach_lerp_([average[n] for n in floating], [current[n] for n in floating], weight)
        for name in current.keys() - set(floating):
            average[name].copy_(current[name])

    @staticmethod
    def _tensors(module: nn.Module) -> dict[str, Tensor]:
        tensors = {**dict(module.named_parameters()), **dict(module.named_buffers())}
        # Of a module that is cut among processes, each averages its own part.
        return {n: t.to_local() if hasattr(t, "to_local") else t for n, t in tensors.items()}
