"""Convolutions that start by keeping the scale of what passes through them.

With independent inputs of mean square m, weights of variance gain^2 / (m * fan_in) give outputs of
variance gain^2 (He et al. 2015). Without normalisation this start is what keeps activations in
range; with PyTorch's own they shrink by two thirds per layer.
"""

import math

import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["AFTER_SILU", "LINEAR", "convolution", "start_weights"]

LINEAR = 1.0
"""Gain behind a linear layer."""
AFTER_SILU = 1.68
"""Gain behind a SiLU: one over the root mean square of silu(x), x ~ N(0, 1)."""


def start_weights(weight: Tensor, fan_in: int, gain: float) -> None:
    """Draw weights of variance gain^2 / fan_in, in place."""
    nn.init.normal_(weight, std=gain / math.sqrt(fan_in))


class _Pointwise(nn.Conv2d):
    """A 1x1 convolution, which over a single cell is a matrix product and is computed as one.

    A convolution arranges weights anew at every call; with one cell that is most of its time.
    """

    def forward(self, input: Tensor) -> Tensor:
        if input.shape[-2:] != (1, 1):
            return super().forward(input)
        return F.linear(input.flatten(1), self.weight.flatten(1), self.bias)[:, :, None, None]


def convolution(
    in_width: int, out_width: int, kernel_size: int, *, gain: float, stride: int = 1
) -> nn.Conv2d:
    """A convolution whose output has rows / stride rows, with a scale-keeping start.

    Args:
        in_width: Maps in.
        out_width: Maps out.
        kernel_size: Rows and columns of the kernel; even for stride 2, odd for stride 1.
        gain: `LINEAR` or `AFTER_SILU`, or less for a smaller start.
        stride: Rows and columns per step.
    """
    make = _Pointwise if kernel_size == stride == 1 else nn.Conv2d
    layer = make(
        in_width, out_width, kernel_size, stride=stride, padding=(kernel_size - stride) // 2
    )
    start_weights(layer.weight, in_width * kernel_size**2, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
