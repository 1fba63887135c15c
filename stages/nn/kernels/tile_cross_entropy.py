"""Cross entropy of a linear layer, trained in bfloat16 by kernels of our own for tiles.

    l = W h + b,    loss = log(sum over codes of e^l) - l at the target
    dl = dloss (softmax(l) - 1 at the target),    dh = W^T dl,    dW = dl h^T,    db = dl

One call forward and one backward, each of a few hundred rows at a time while their logits are in
the cache of a core (tile_cross_entropy.cpp). Logits are rounded to bfloat16, as autocast does, and
kept so: they are nowhere in float32, which for large codebooks is most of a step's memory.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from stages.nn.kernels.operators import operator
from stages.nn.kernels.tiles import BLOCK, call_kernel, trains_in_bfloat16

__all__ = ["can_compare_with_tiles", "tile_cross_entropy"]

_call = functools.partial(call_kernel, Path(__file__).with_suffix(".cpp"))


def can_compare_with_tiles(
    hidden: Float[Tensor, "rows width"], weight: Float[Tensor, "codes width"]
) -> bool:
    """Whether this is a training whose last layer and loss the kernels can take."""
    sizes = (*hidden.shape, len(weight))
    return (
        trains_in_bfloat16(hidden)
        and weight.dtype == torch.float32
        and all(size > 0 and size % BLOCK == 0 for size in sizes)
    )


def tile_cross_entropy(
    hidden: Float[Tensor, "rows width"],
    weight: Float[Tensor, "codes width"],
    bias: Float[Tensor, " codes"],
    targets: Int[Tensor, " rows"],
) -> Float[Tensor, " rows"]:
    """-log softmax(W h + b) at the target, of every row; NaN where the target is no code.

    Args:
        hidden: What `can_compare_with_tiles`, with the weight.
        weight: Of the layer.
        bias: Of the layer.
        targets: Codes.
    """
    return _CrossEntropy.apply(hidden.bfloat16(), weight, bias, targets)


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> Tensor:
        losses, *kept = _cross_entropy(hidden, weight, bias, targets)
        ctx.save_for_backward(hidden, weight, targets, *kept)
        return losses

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, back: Tensor) -> tuple[Tensor | None, ...]:
        return *_cross_entropy_gradient(back, *ctx.saved_tensors), None


def _empty(hidden: Tensor, weight: Tensor, bias: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    rows, codes = len(hidden), len(weight)
    return weight.new_empty(rows), hidden.new_empty(rows, codes), weight.new_empty(rows)


def _make(hidden: Tensor, weight: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    found = _empty(hidden, weight, *others)
    _call("cross_entropy", (hidden, weight, *others, *found), *hidden.shape, len(weight))
    return found


def _empty_gradient(
    back: Tensor, hidden: Tensor, weight: Tensor, *others: Tensor
) -> tuple[Tensor, ...]:
    return (
        hidden.new_empty(hidden.shape),
        weight.new_empty(weight.shape),
        weight.new_empty(len(weight)),
    )


def _make_gradient(
    back: Tensor, hidden: Tensor, weight: Tensor, *others: Tensor
) -> tuple[Tensor, ...]:
    found = _empty_gradient(back, hidden, weight, *others)
    tensors = (back, hidden, weight, *others, *found)
    _call("cross_entropy_gradient", tensors, *hidden.shape, len(weight))
    return found


_cross_entropy = operator(
    "tile_cross_entropy(Tensor hidden, Tensor weight, Tensor bias, Tensor targets)"
    " -> (Tensor, Tensor, Tensor)",
    _empty,
    CPU=_make,
)
_cross_entropy_gradient = operator(
    "tile_cross_entropy_gradient(Tensor back, Tensor hidden, Tensor weight, Tensor targets,"
    " Tensor logits, Tensor logs) -> (Tensor, Tensor, Tensor)",
    _empty_gradient,
    CPU=_make_gradient,
)
