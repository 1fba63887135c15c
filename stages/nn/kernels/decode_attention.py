"""Attention of one new token to a cache: decode attention, by kernels of our own.

    o = sum over t <= now of p_t v_t,    p = softmax(q k_t / sqrt(d))

(Vaswani et al. 2017, arXiv:1706.03762, Eq. 1, with one query). There is nothing to multiply twice:
it should take what reading the cache takes. PyTorch's fused attention is made for many queries and
takes twice that (docs/speed.md); loops that `torch.compile` makes of sums are no better.

That of a CPU, decode_attention.cpp, is compiled when it is first needed (cpp_kernels.py); a build
of PyTorch that cannot goes on with its fused attention. That of a GPU is written in Triton
(decode_attention_gpu.py).
"""

import ctypes
import functools
import importlib.util
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.nn.attention import OneToken
from stages.nn.kernels.cpp_kernels import NUMBERS, can_compile, compiled_library
from stages.nn.kernels.operators import operator

__all__ = ["attend_to_cache", "can_attend_to_cache"]

_SOURCE = Path(__file__).with_suffix(".cpp")

Cached = Float[Tensor, "*layer batch heads room head_dim"]


def can_attend_to_cache(keys: Cached) -> bool:
    """Whether a kernel can do it: in these dtypes, on this device, by this build of PyTorch."""
    there = {"cpu": can_compile, "cuda": _has_triton}
    return keys.dtype in NUMBERS and there.get(keys.device.type, lambda: False)()


def attend_to_cache(
    queries: OneToken,
    new_keys: OneToken,
    new_values: OneToken,
    keys: Cached,
    values: Cached,
    now: Int[Tensor, "1"],
) -> OneToken:
    """Put the token's key and value into the cache at `now`, and mix all values up to it.

    Args:
        queries: Of the dtype of the cache, as the new keys and values.
        new_keys: The same shape.
        new_values: The same shape.
        keys: What lies behind `now` is not looked at. The heads of all rows equally far apart.
        values: The same shape and strides.
        now: How many tokens there were.
    """
    return _decode_attention(queries, new_keys, new_values, keys, values, now)


def _attend(
    queries: Tensor,
    new_keys: Tensor,
    new_values: Tensor,
    keys: Tensor,
    values: Tensor,
    now: Tensor,
) -> Tensor:
    rows, heads, _, head_dim = queries.shape
    mixed = queries.new_empty(queries.shape)
    new = [_heads_side_by_side(tensor) for tensor in (queries, new_keys, new_values)]
    attend = _kernel(queries.dtype, head_dim)
    attend(
        *(number for tensor in new for number in (tensor.data_ptr(), tensor.stride(0))),
        *(keys.data_ptr(), values.data_ptr(), keys.stride(1)),
        mixed.data_ptr(),
        *(rows, heads, now.item(), head_dim**-0.5, torch.get_num_threads()),
    )
    return mixed


def _attend_on_a_gpu(
    queries: Tensor,
    new_keys: Tensor,
    new_values: Tensor,
    keys: Tensor,
    values: Tensor,
    now: Tensor,
) -> Tensor:
    # Imported here: Triton comes with the builds for GPUs only.
    from stages.nn.kernels.decode_attention_gpu import attend

    new = [_heads_side_by_side(tensor) for tensor in (queries, new_keys, new_values)]
    return attend(*new, keys, values, now)


_decode_attention = operator(
    "decode_attention(Tensor queries, Tensor new_keys, Tensor new_values,"
    " Tensor(a!) keys, Tensor(b!) values, Tensor now) -> Tensor",
    lambda queries, *others: queries.new_empty(queries.shape),
    CPU=_attend,
    CUDA=_attend_on_a_gpu,
)


def _heads_side_by_side(one: Tensor) -> Tensor:
    """The tensor, or a copy whose numbers of a row follow each other."""
    head_dim = one.shape[-1]
    return one if one.stride()[1::2] == (head_dim, 1) else one.contiguous()


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def _kernel(dtype: torch.dtype, head_dim: int) -> Callable[..., None]:
    attend = compiled_library(_SOURCE, NUMBER=NUMBERS[dtype], HEAD_DIM=head_dim).attend
    of_new = [ctypes.c_void_p, ctypes.c_int64]
    attend.argtypes = [
        *(of_new * 3),
        *(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p),
        *(ctypes.c_int64, ctypes.c_int64, ctypes.c_int64, ctypes.c_float, ctypes.c_int),
    ]
    attend.restype = None
    return attend
