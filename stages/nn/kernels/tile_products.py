"""Linear layers trained in bfloat16 with the tile registers of a CPU (AMX), by kernels of our own.

    y = x W^T,    dL/dW = (dL/dy)^T x
    y = (silu(g) * u) W_out^T,    g and u the halves of x W_in^T

oneDNN multiplies well what is stored as it reads it. The gradient of a weight is not: both
factors have to be turned, and it runs at half the speed of the others. tile_products.cpp turns 32
columns of 256 rows at a time, which stay in the cache of a core. A gated feed-forward layer goes
through memory between its products: here what lies between is computed in registers, and what the
gradient needs is kept in the order in which it will be read.

Sums are in float32, and so are the gradients of weights, which oneDNN rounds.
"""

import functools
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from stages.nn.kernels.operators import operator
from stages.nn.kernels.tiles import BLOCK, call_kernel, trains_in_bfloat16

__all__ = ["Linear", "can_use_tiles", "gated_feed_forward"]

_call = functools.partial(call_kernel, Path(__file__).with_suffix(".cpp"))

Rows = Float[Tensor, "*rows in"]


class Linear(nn.Linear):
    """`torch.nn.Linear` without bias."""

    def __init__(self, in_features: int, out_features: int) -> None:
        super().__init__(in_features, out_features, bias=False)

    def forward(self, input: Rows) -> Float[Tensor, "*rows out"]:
        """Map every row."""
        if can_use_tiles(input, self.weight):
            return _Linear.apply(input.bfloat16(), self.weight)
        return super().forward(input)


def gated_feed_forward(
    x: Rows,
    weight_in: Float[Tensor, "two_hidden in"],
    weight_out: Float[Tensor, "in hidden"],
) -> Rows:
    """(silu(g) * u) W_out^T with g, u the halves of x W_in^T; `can_use_tiles` for both weights."""
    return _GatedFeedForward.apply(x.bfloat16(), weight_in, weight_out)


def can_use_tiles(x: Rows, weight: Tensor) -> bool:
    """Whether these are rows of a training in bfloat16 and a weight that the kernels can take."""
    return (
        trains_in_bfloat16(x)
        and weight.dtype == torch.float32
        and (rows := _rows(x)) > 0
        and rows % BLOCK == 0
        and all(size % BLOCK == 0 for size in weight.shape)
    )


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        weight = weight.bfloat16()
        ctx.save_for_backward(x, weight)
        return F.linear(x, weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor]:
        x, weight = ctx.saved_tensors
        return gradient @ weight, _weight_gradient(gradient, x)


class _GatedFeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight_in: Tensor, weight_out: Tensor) -> Tensor:
        output, kept = _feed_forward(x, weight_in, weight_out)
        ctx.save_for_backward(x, weight_in, weight_out, kept)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _feed_forward_gradient(gradient, *ctx.saved_tensors)


def _rows(x: Tensor) -> int:
    return math.prod(x.shape[:-1])


def _make_weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    by_weight = _empty_weight_gradient(gradient, x)
    out, width = by_weight.shape
    _call("linear_gradient", (gradient, x, by_weight), _rows(x), width, out)
    return by_weight


def _empty_weight_gradient(gradient: Tensor, x: Tensor) -> Tensor:
    return x.new_empty(gradient.shape[-1], x.shape[-1], dtype=torch.float32)


def _make_feed_forward(x: Tensor, weight_in: Tensor, weight_out: Tensor) -> tuple[Tensor, Tensor]:
    output, kept = _empty_feed_forward(x, weight_in, weight_out)
    width, hidden = weight_out.shape
    _call("feed_forward", (x, weight_in, weight_out, kept, output), _rows(x), width, hidden)
    return output, kept


def _empty_feed_forward(x: Tensor, weight_in: Tensor, weight_out: Tensor) -> tuple[Tensor, Tensor]:
    width, hidden = weight_out.shape
    # What is kept has three numbers for each one between the products.
    return x.new_empty(*x.shape[:-1], width), x.new_empty(3, _rows(x), hidden)


def _make_feed_forward_gradient(
    gradient: Tensor, x: Tensor, weight_in: Tensor, weight_out: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    given = gradient, x, weight_in, weight_out, kept
    found = _empty_feed_forward_gradient(*given)
    width, hidden = weight_out.shape
    _call("feed_forward_gradient", (*given, *found), _rows(x), width, hidden)
    return found


def _empty_feed_forward_gradient(
    gradient: Tensor, x: Tensor, weight_in: Tensor, weight_out: Tensor, kept: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        x.new_empty(x.shape),
        weight_in.new_empty(weight_in.shape),
        weight_out.new_empty(weight_out.shape),
    )


_weight_gradient = operator(
    "tile_weight_gradient(Tensor gradient, Tensor x) -> Tensor",
    _empty_weight_gradient,
    CPU=_make_weight_gradient,
)
_feed_forward = operator(
    "tile_feed_forward(Tensor x, Tensor weight_in, Tensor weight_out) -> (Tensor, Tensor)",
    _empty_feed_forward,
    CPU=_make_feed_forward,
)
_feed_forward_gradient = operator(
    "tile_feed_forward_gradient(Tensor gradient, Tensor x, Tensor weight_in, Tensor weight_out,"
    " Tensor kept) -> (Tensor, Tensor, Tensor)",
    _empty_feed_forward_gradient,
    CPU=_make_feed_forward_gradient,
)
