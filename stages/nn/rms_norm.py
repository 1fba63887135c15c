"""Root mean square norm, on a CPU by the fused kernel of the layer norm's gradient.

    y = w r x,    r = (mean(x^2) + eps)^(-1/2)

(Zhang & Sennrich 2019, arXiv:1910.07467, Eq. 4). Accelerators have a fused kernel for it, and
`torch.compile` makes one. A CPU has none: every one of some five operations goes through memory,
and their gradients twice as often. The gradient of a layer norm (Ba et al. 2016, arXiv:1607.06450)
whose mean is taken to be zero,

    dx = r w dy - x r^3 mean(w dy x) - r mean(w dy),    dw = sum over rows of r x dy

is that of this norm but for its last term, which stands for the mean's own gradient and is given
back here. Forward and backward of 8,192 rows of 384 numbers: 11 ms where it was 28; a training step
of a prior in bfloat16: a tenth less.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

__all__ = ["RMSNorm", "rms_norm"]


class RMSNorm(nn.RMSNorm):
    """`torch.nn.RMSNorm` over the last axis, faster on a CPU."""

    def __init__(self, width: int) -> None:
        super().__init__(width)

    def forward(self, x: Float[Tensor, "*rows width"]) -> Float[Tensor, "*rows width"]:
        """Normalise every row."""
        return rms_norm(x, self.weight)


def rms_norm(
    x: Float[Tensor, "*rows width"], weight: Float[Tensor, " width"] | None = None
) -> Float[Tensor, "*rows width"]:
    """Every row over its root mean square, times the weight; eps is that of the dtype."""
    if x.device.type != "cpu" or x.dtype != torch.float32 or torch.compiler.is_compiling():
        return F.rms_norm(x, x.shape[-1:], weight)
    # Steps of sampling have few rows, and to set up a gradient takes as long as the norm.
    return _FusedGradient.apply(x, weight) if torch.is_grad_enabled() else _normed(x, weight)[0]


def _normed(x: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    mean_square = torch.linalg.vector_norm(x, dim=-1, keepdim=True).square_() / x.shape[-1]
    scale = mean_square.add_(torch.finfo(x.dtype).eps).rsqrt_()
    return x * scale if weight is None else (x * scale).mul_(weight), scale


class _FusedGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor | None) -> Tensor:
        y, scale = _normed(x, weight)
        ctx.save_for_backward(x, scale, weight)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor | None]:
        x, scale, weight = ctx.saved_tensors
        by_x, by_weight, _ = torch.ops.aten.native_layer_norm_backward(
            gradient,
            x,
            x.shape[-1:],
            torch.zeros_like(scale),
            scale,
            weight,
            None,
            [True, weight is not None, False],
        )
        of_mean = (
            gradient.sum(dim=-1, keepdim=True)
            if weight is None
            else (gradient @ weight).unsqueeze(-1)
        )
        return by_x.addcmul_(of_mean, scale, value=1 / x.shape[-1]), by_weight
