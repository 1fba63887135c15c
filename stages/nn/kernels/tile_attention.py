"""softmax(Q K^T / sqrt(d)) V of short sequences and its gradient, by a kernel of our own.

    O = P V,    P = softmax(S),    S = Q K^T / sqrt(d), -inf where a position may not look

A head of 256 tokens and all that its gradient needs stay in the cache of one core
(tile_attention.cpp), as those of a block do in FlashAttention (Dao et al. 2022, arXiv:2205.14135):
S and P are never written, blocks that nobody sees are not computed, and two numbers of every row
are all that is kept. 192 heads of 256 tokens, forward and backward, take 9 ms on two cores, where
products of whole matrices, with a softmax between them, take 27.
"""

import ctypes
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from stages.nn.kernels.operators import operator
from stages.nn.kernels.tiles import BLOCK, tile_kernels, trains_with_tiles

__all__ = ["attend_with_tiles", "can_attend_with_tiles"]

_SOURCE = Path(__file__).with_suffix(".cpp")

# dS of a head is held whole, 2 MB of so many.
_MOST_TOKENS = 1024

PerHead = Float[Tensor, "batch heads tokens head_dim"]


def can_attend_with_tiles(queries: PerHead) -> bool:
    """Whether these are queries of a training that the kernel can take."""
    tokens, head_dim = queries.shape[2:]
    return (
        trains_with_tiles(queries)
        and queries.dtype == torch.bfloat16
        and tokens % BLOCK == 0
        and tokens <= _MOST_TOKENS
        and head_dim % BLOCK == 0
    )


def attend_with_tiles(queries: PerHead, keys: PerHead, values: PerHead, *, causal: bool) -> PerHead:
    """Mix the values of all positions, or of those up to each one."""
    return _Attention.apply(queries, keys, values, causal)


class _Attention(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, queries: Tensor, keys: Tensor, values: Tensor, causal: bool) -> Tensor:
        mixed, sums = _forward(queries, keys, values, causal)
        ctx.save_for_backward(queries, keys, values, mixed, sums)
        ctx.causal = causal
        return mixed

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor, None]:
        return *_backward(gradient, *ctx.saved_tensors, ctx.causal), None


class _Strided(ctypes.Structure):
    _fields_ = (
        ("numbers", ctypes.c_void_p),
        ("batch", ctypes.c_int64),
        ("head", ctypes.c_int64),
        ("token", ctypes.c_int64),
    )


def _strided(tensor: PerHead) -> _Strided:
    assert tensor.stride(3) == 1, "callers make it so"
    return _Strided(tensor.data_ptr(), *tensor.stride()[:3])


def _side_by_side(tensor: PerHead) -> PerHead:
    """The tensor, or a copy in which the numbers of a token follow each other."""
    return tensor if tensor.stride(3) == 1 else tensor.contiguous()


def _attend(queries: Tensor, keys: Tensor, values: Tensor, causal: bool) -> tuple[Tensor, Tensor]:
    inputs = [_side_by_side(each) for each in (queries, keys, values)]
    mixed, sums = _empty_forward(*inputs, causal)
    strided = [_strided(each) for each in (*inputs, mixed)]
    _call("attention", *strided, _address(sums), sizes=queries.shape, causal=causal)
    return mixed, sums


def _attend_gradient(
    gradient: Tensor,
    queries: Tensor,
    keys: Tensor,
    values: Tensor,
    mixed: Tensor,
    sums: Tensor,
    causal: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    inputs = [_side_by_side(each) for each in (queries, keys, values, mixed, gradient)]
    found = _empty_backward(gradient, queries, keys, values, mixed, sums, causal)
    _call(
        "attention_gradient",
        *(_strided(each) for each in inputs),
        _address(sums),
        *(_strided(each) for each in found),
        sizes=queries.shape,
        causal=causal,
    )
    return found


def _empty_forward(
    queries: Tensor, keys: Tensor, values: Tensor, causal: bool
) -> tuple[Tensor, Tensor]:
    return _heads_of_tokens(queries), queries.new_empty(2, *queries.shape[:3], dtype=torch.float32)


def _empty_backward(gradient: Tensor, queries: Tensor, *others: Any) -> tuple[Tensor, ...]:
    return tuple(_heads_of_tokens(queries) for _ in range(3))


def _heads_of_tokens(queries: PerHead) -> PerHead:
    """Of this shape, the heads of a token side by side, as projections read and write them."""
    batch, heads, tokens, head_dim = queries.shape
    return queries.new_empty(batch, tokens, heads, head_dim).transpose(1, 2)


def _address(tensor: Tensor) -> ctypes.c_void_p:
    return ctypes.c_void_p(tensor.data_ptr())


def _call(name: str, *arguments: Any, sizes: torch.Size, causal: bool) -> None:
    passed = [ctypes.c_int64(size) for size in sizes]
    threads = ctypes.c_int(torch.get_num_threads())
    getattr(tile_kernels(_SOURCE), name)(*arguments, *passed, ctypes.c_bool(causal), threads)


_forward = operator(
    "tile_attention(Tensor queries, Tensor keys, Tensor values, bool causal) -> (Tensor, Tensor)",
    _empty_forward,
    CPU=_attend,
)
_backward = operator(
    "tile_attention_gradient(Tensor gradient, Tensor queries, Tensor keys, Tensor values,"
    " Tensor mixed, Tensor sums, bool causal) -> (Tensor, Tensor, Tensor)",
    _empty_backward,
    CPU=_attend_gradient,
)
