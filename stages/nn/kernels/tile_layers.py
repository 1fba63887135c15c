"""The two layers of a block of a transformer, trained in bfloat16 by kernels of our own for tiles.

    s' = s + a,    b = attention(norm(s'))         projected, normalised, turned, mixed, projected
    s' = s + a,    b = W_out (silu(g) * u)         g and u the halves of W_in norm(s')

s the residual stream, in float32, and a what the layer before adds to it. Each is one call forward
and one backward. Between products everything waits for memory: tile_layers.cpp takes some 512 rows
through a whole layer while they are in the cache of a core, makes queries and keys where they are
compared and again where their gradient is, computes gates in registers, and keeps what the gradient
needs in the order in which it will be read. The gradients of weights, whose factors both have to be
turned, are added up over all rows behind; they stay in float32.
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

__all__ = [
    "attention_layer",
    "can_attend_with_tiles",
    "can_train_with_tiles",
    "feed_forward_layer",
]

_call = functools.partial(call_kernel, Path(__file__).with_suffix(".cpp"))

# dS of a head is held whole, 2 MB of so many.
_MOST_TOKENS = 1024
# A query or key is held in registers: loops over its numbers are compiled for each of these.
_HEAD_DIMS = (32, 64, 96, 128)

Stream = Float[Tensor, "batch tokens width"]
Weight = Float[Tensor, "out in"]


def can_train_with_tiles(stream: Stream) -> bool:
    """Whether this is the residual stream of a training whose layers the kernels can take."""
    batch, tokens, width = stream.shape
    return (
        trains_in_bfloat16(stream)
        and stream.dtype == torch.float32
        and (rows := batch * tokens) > 0
        and rows % BLOCK == width % BLOCK == 0
    )


def can_attend_with_tiles(stream: Stream, head_dim: int) -> bool:
    """Whether this is so for attention, too.

    Args:
        stream: One that `can_train_with_tiles`.
        head_dim: Numbers of a query.
    """
    return head_dim in _HEAD_DIMS and stream.shape[1] <= _MOST_TOKENS


def attention_layer(
    stream: Stream,
    added: Stream | None,
    norm: Float[Tensor, " width"],
    weight_in: Float[Tensor, "three_widths width"],
    gain: Float[Tensor, "2 1 head_dim"] | None,
    rotations: Rotations | None,
    weight_out: Float[Tensor, "width width"],
    num_heads: int,
) -> tuple[Stream, Stream]:
    """Causal attention: the stream it reads, and what it adds to that, in bfloat16.

    Args:
        stream: One that `can_attend_with_tiles`.
        added: By the layer before; None: nothing.
        norm: Weight of the norm of the stream.
        weight_in: To queries, keys and values.
        gain: Of normalised queries and keys; None: they are not.
        rotations: Of every position; None: they are not turned.
        weight_out: From mixed values.
        num_heads: Heads.
    """
    added = None if added is None else added.bfloat16()
    turns = (None, None) if rotations is None else (rotations.cosines, rotations.sines)
    return _Attention.apply(stream, added, norm, weight_in, gain, *turns, weight_out, num_heads)


def feed_forward_layer(
    stream: Stream,
    added: Stream,
    norm: Float[Tensor, " width"],
    weight_in: Float[Tensor, "two_hidden width"],
    weight_out: Float[Tensor, "width hidden"],
) -> tuple[Stream, Stream]:
    """The gated feed-forward layer: the stream it reads, and what it adds, in bfloat16.

    Args:
        stream: One that `can_train_with_tiles`.
        added: By the layer before.
        norm: Weight of the norm of the stream.
        weight_in: To gates and what they let through; `hidden` a multiple of 32.
        weight_out: From their product.
    """
    return _FeedForward.apply(stream, added.bfloat16(), norm, weight_in, weight_out)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, stream: Tensor, added: Tensor | None, *given: Any
    ) -> tuple[Tensor, Tensor]:
        *weights, ctx.num_heads = given
        total, attended, *kept = _attention(stream, added, *weights, ctx.num_heads)
        ctx.nothing_added = added is None
        ctx.save_for_backward(*weights, total, *kept)
        return total, attended

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *back: Tensor) -> tuple[Tensor | None, ...]:
        by_stream, by_added, by_norm, by_weight_in, by_gain, by_weight_out = _attention_gradient(
            *back, *ctx.saved_tensors, ctx.num_heads
        )
        gain = ctx.saved_tensors[2]
        return (
            by_stream,
            None if ctx.nothing_added else by_added,
            by_norm,
            by_weight_in,
            None if gain is None else by_gain.view_as(gain),
            *(None, None),
            by_weight_out,
            None,
        )


class _FeedForward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, stream: Tensor, added: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        total, output, *kept = _feed_forward(stream, added, *weights)
        ctx.save_for_backward(*weights, total, *kept)
        return total, output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *back: Tensor) -> tuple[Tensor, ...]:
        return _feed_forward_gradient(*back, *ctx.saved_tensors)


def _empty_attention(stream: Tensor, *others: Any) -> tuple[Tensor, ...]:
    batch, tokens, width = stream.shape
    rows = functools.partial(stream.new_empty, dtype=torch.bfloat16)
    return (
        stream.new_empty(stream.shape),
        rows(stream.shape),
        rows(stream.shape),
        rows(batch, tokens, 3 * width),
        rows(stream.shape),
        stream.new_empty(2, batch, others[-1], -(-tokens // BLOCK) * BLOCK),
    )


def _make_attention(
    stream: Tensor, added: Tensor | None, *weights_and_heads: Any
) -> tuple[Tensor, ...]:
    *weights, num_heads = weights_and_heads
    found = _empty_attention(stream, num_heads)
    sizes = _sizes(stream, num_heads, cosines=weights[3])
    _call("attention_layer", (stream, added, *weights, *found), *sizes)
    return found


def _empty_attention_gradient(
    by_total: Tensor, by_attended: Tensor, norm: Tensor, weight_in: Tensor, *others: Any
) -> tuple[Tensor, ...]:
    width, num_heads = len(norm), others[-1]
    return (
        by_total.new_empty(by_total.shape),
        by_attended.new_empty(by_total.shape),
        norm.new_empty(norm.shape),
        weight_in.new_empty(weight_in.shape),
        norm.new_empty(2, width // num_heads),
        norm.new_empty(width, width),
    )


def _make_attention_gradient(*given: Any) -> tuple[Tensor, ...]:
    *tensors, num_heads = given
    found = _empty_attention_gradient(*given)
    sizes = _sizes(tensors[0], num_heads, cosines=tensors[5])
    _call("attention_layer_gradient", (*tensors, *found), *sizes)
    return found


def _sizes(stream: Tensor, num_heads: int, cosines: Tensor | None) -> tuple[int, ...]:
    batch, tokens, width = stream.shape
    turns = 1 if cosines is None else cosines.shape[0] * cosines.shape[1]
    return batch, tokens, num_heads, width // num_heads, turns


def _rows(stream: Tensor) -> int:
    return stream.shape[0] * stream.shape[1]


def _empty_feed_forward(
    stream: Tensor, added: Tensor, norm: Tensor, weight_in: Tensor, weight_out: Tensor
) -> tuple[Tensor, ...]:
    return (
        stream.new_empty(stream.shape),
        added.new_empty(stream.shape),
        added.new_empty(stream.shape),
        # Three numbers for each one between the products.
        added.new_empty(3, _rows(stream), weight_out.shape[1]),
    )


def _make_feed_forward(stream: Tensor, *others: Tensor) -> tuple[Tensor, ...]:
    found = _empty_feed_forward(stream, *others)
    sizes = _rows(stream), *others[-1].shape
    _call("feed_forward_layer", (stream, *others, *found), *sizes)
    return found


def _empty_feed_forward_gradient(
    by_total: Tensor, by_output: Tensor, *weights_and_kept: Tensor
) -> tuple[Tensor, ...]:
    return (
        by_total.new_empty(by_total.shape),
        by_output.new_empty(by_total.shape),
        *(weight.new_empty(weight.shape) for weight in weights_and_kept[:3]),
    )


def _make_feed_forward_gradient(*given: Tensor) -> tuple[Tensor, ...]:
    found = _empty_feed_forward_gradient(*given)
    sizes = _rows(given[0]), *given[4].shape
    _call("feed_forward_layer_gradient", (*given, *found), *sizes)
    return found


_WEIGHTS = (
    "Tensor norm, Tensor weight_in, Tensor? gain, Tensor? cosines, Tensor? sines, Tensor weight_out"
)
_attention = operator(
    f"tile_attention_layer(Tensor stream, Tensor? added, {_WEIGHTS}, int num_heads)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _empty_attention,
    CPU=_make_attention,
)
_attention_gradient = operator(
    f"tile_attention_layer_gradient(Tensor by_total, Tensor by_attended, {_WEIGHTS}, Tensor total,"
    " Tensor normed, Tensor projected, Tensor mixed, Tensor sums, int num_heads)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor, Tensor)",
    _empty_attention_gradient,
    CPU=_make_attention_gradient,
)
_feed_forward = operator(
    "tile_feed_forward_layer(Tensor stream, Tensor added, Tensor norm, Tensor weight_in,"
    " Tensor weight_out) -> (Tensor, Tensor, Tensor, Tensor)",
    _empty_feed_forward,
    CPU=_make_feed_forward,
)
_feed_forward_gradient = operator(
    "tile_feed_forward_layer_gradient(Tensor by_total, Tensor by_output, Tensor norm,"
    " Tensor weight_in, Tensor weight_out, Tensor total, Tensor normed, Tensor kept)"
    " -> (Tensor, Tensor, Tensor, Tensor, Tensor)",
    _empty_feed_forward_gradient,
    CPU=_make_feed_forward_gradient,
)
