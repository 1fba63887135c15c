"""Norms of a training in bfloat16 and what surrounds them, in one pass, by kernels of our own.

    s' = s + a,    y = w s' / rms(s')                   the residual stream, before every layer
    q, k = turned(g p / rms(p))                         queries and keys, head by head

All of it waits for memory: what counts is how often numbers are read and written. The loops that
`torch.compile` makes of these write what lies between in float32 and read it again, three to five
times; norm_kernels.cpp goes over each row once, forward and backward.
"""

import functools
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from stages.nn.kernels.operators import operator
from stages.nn.kernels.tiles import BLOCK, call_kernel, trains_in_bfloat16
from stages.nn.rotary import Rotations

__all__ = ["add_and_norm", "can_add_and_norm", "can_compare", "compared"]

_call = functools.partial(call_kernel, Path(__file__).with_suffix(".cpp"))

Stream = Float[Tensor, "*rows width"]
Projected = Float[Tensor, "batch tokens 3 heads head_dim"]
Compared = Float[Tensor, "batch tokens 2 heads head_dim"]


def can_add_and_norm(stream: Stream) -> bool:
    """Whether this is the residual stream of a training that the kernel can take."""
    return (
        trains_in_bfloat16(stream)
        and stream.dtype == torch.float32
        and stream.shape[-1] % BLOCK == 0
    )


def add_and_norm(
    stream: Stream, added: Stream, weight: Float[Tensor, " width"]
) -> tuple[Stream, Stream]:
    """stream + added in float32, and its root mean square norm, in bfloat16."""
    return _AddAndNorm.apply(stream, added.bfloat16(), weight)


def can_compare(projected: Projected) -> bool:
    """Whether these are projections of a training that the kernel can take."""
    return (
        trains_in_bfloat16(projected)
        and projected.dtype == torch.bfloat16
        and projected.shape[-1] % BLOCK == 0
    )


def compared(
    projected: Projected, gain: Float[Tensor, "2 1 head_dim"] | None, rotations: Rotations | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Queries, keys and values, each (batch, heads, tokens, head_dim).

    Args:
        projected: Of every token.
        gain: Of normalised queries and keys; None: they are not.
        rotations: Of every position; None: they are not turned.
    """
    turns = (None, None) if rotations is None else (rotations.cosines, rotations.sines)
    return _Compared.apply(projected, gain, *turns)


class _AddAndNorm(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, stream: Tensor, added: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
        total, normed = _add_and_norm(stream, added, weight)
        ctx.save_for_backward(total, weight)
        return total, normed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, by_total: Tensor, by_normed: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        return _add_and_norm_gradient(by_total, by_normed, *ctx.saved_tensors)


class _Compared(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        projected: Tensor,
        gain: Tensor | None,
        cosines: Tensor | None,
        sines: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(projected, gain, cosines, sines)
        queries, keys = _compare(projected, gain, cosines, sines).permute(2, 0, 3, 1, 4)
        return queries, keys, projected[:, :, 2].transpose(1, 2)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor | None, None, None]:
        by_projected, by_gain = _compare_gradient(*gradients, *ctx.saved_tensors)
        gain = ctx.saved_tensors[1]
        return by_projected, None if gain is None else by_gain.view_as(gain), None, None


def _add(stream: Tensor, added: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    found = _empty_add(stream, added, weight)
    _call("add_and_norm", (stream, added, weight, *found), *_rows_and_width(stream))
    return found


def _add_gradient(
    by_total: Tensor, by_normed: Tensor, total: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    found = _empty_add_gradient(by_total, by_normed, total, weight)
    _call(
        "add_and_norm_gradient",
        (by_total, by_normed, total, weight, *found),
        *_rows_and_width(total),
    )
    return found


def _empty_add(stream: Tensor, added: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    return stream.new_empty(stream.shape), added.new_empty(stream.shape)


def _empty_add_gradient(
    by_total: Tensor, by_normed: Tensor, total: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    of_total = total.new_empty(total.shape)
    return of_total, by_normed.new_empty(total.shape), weight.new_empty(weight.shape)


def _rows_and_width(stream: Tensor) -> tuple[int, int]:
    width = stream.shape[-1]
    return stream.numel() // width, width


def _make_compared(
    projected: Tensor, gain: Tensor | None, cosines: Tensor | None, sines: Tensor | None
) -> Tensor:
    found = _empty_compared(projected, gain, cosines, sines)
    _call(
        "compare",
        (projected, gain, cosines, sines, found),
        *_comparing_sizes(projected, cosines),
    )
    return found


def _make_compared_gradient(
    by_queries: Tensor,
    by_keys: Tensor,
    by_values: Tensor,
    projected: Tensor,
    gain: Tensor | None,
    cosines: Tensor | None,
    sines: Tensor | None,
) -> tuple[Tensor, Tensor]:
    given = [each.transpose(1, 2) for each in (by_queries, by_keys, by_values)]
    found = _empty_compared_gradient(*given, projected, gain, cosines, sines)
    _call(
        "compare_gradient",
        (*given, projected, gain, cosines, sines, *found),
        *_comparing_sizes(projected, cosines),
    )
    return found


def _empty_compared(projected: Tensor, *others: Tensor | None) -> Tensor:
    batch, tokens, _, heads, head_dim = projected.shape
    return projected.new_empty(batch, tokens, 2, heads, head_dim)


def _empty_compared_gradient(
    by_queries: Tensor, by_keys: Tensor, by_values: Tensor, projected: Tensor, *others: Any
) -> tuple[Tensor, Tensor]:
    head_dim = projected.shape[-1]
    by_gain = projected.new_empty(2, head_dim, dtype=torch.float32)
    return projected.new_empty(projected.shape), by_gain


def _comparing_sizes(projected: Tensor, cosines: Tensor | None) -> tuple[int, ...]:
    batch, tokens, _, heads, head_dim = projected.shape
    turns = 1 if cosines is None else cosines.shape[0] * cosines.shape[1]
    return batch * tokens, heads, head_dim, turns


_add_and_norm = operator(
    "add_and_norm(Tensor stream, Tensor added, Tensor weight) -> (Tensor, Tensor)",
    _empty_add,
    CPU=_add,
)
_add_and_norm_gradient = operator(
    "add_and_norm_gradient(Tensor by_total, Tensor by_normed, Tensor total, Tensor weight)"
    " -> (Tensor, Tensor, Tensor)",
    _empty_add_gradient,
    CPU=_add_gradient,
)
_compare = operator(
    "compare(Tensor projected, Tensor? gain, Tensor? cosines, Tensor? sines) -> Tensor",
    _empty_compared,
    CPU=_make_compared,
)
_compare_gradient = operator(
    "compare_gradient(Tensor by_queries, Tensor by_keys, Tensor by_values, Tensor projected,"
    " Tensor? gain, Tensor? cosines, Tensor? sines) -> (Tensor, Tensor)",
    _empty_compared_gradient,
    CPU=_make_compared_gradient,
)
