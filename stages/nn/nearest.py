"""Looking up short vectors in a codebook on a CPU, by a kernel of our own.

A product and a search behind it write every distance and read it again; of short vectors that takes
longer than to compute them. The kernel, nearest.cpp, keeps them in registers: 8,192 vectors of 16
numbers among 512 take 1.3 ms on one core with AVX-512 and 0.65 on two, where product and search
take 3.7 and 3.5; 16,384 of 8 among 16,384 take 44 and 26 for 206 and 186.

It is compiled when it is first needed (stages/nn/cpp_kernels.py), so it is for code that is
compiled in any case.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.nn.cpp_kernels import can_compile, compiled_library

__all__ = ["can_look_up", "look_up"]

_SOURCE = Path(__file__).with_suffix(".cpp")

_LONGEST = 64
"""Numbers of a vector up to which the kernel was faster than the product."""
_LARGEST = 2**18
"""Numbers of a codebook: 1 MB, so that it stays in the cache next to a core."""
_MOST_CODES = 2**24
"""Codes are counted in float32."""

Vectors = Float[Tensor, "vectors dim"]
Entries = Float[Tensor, "codes dim"]


def can_look_up(vectors: Vectors, entries: Entries) -> bool:
    """Whether the kernel is for these."""
    return (
        vectors.device.type == "cpu"
        and vectors.dtype == entries.dtype == torch.float32
        and vectors.shape[1] <= _LONGEST
        and entries.numel() <= _LARGEST
        and len(entries) <= _MOST_CODES
        and can_compile()
    )


def look_up(
    vectors: Vectors, entries: Entries
) -> tuple[Int[Tensor, " vectors"], Float[Tensor, " vectors"]]:
    """The nearest entry of each vector, of equally near ones the first, and squared distances."""
    vectors, entries = vectors.contiguous(), entries.contiguous()
    codes = vectors.new_empty(len(vectors), dtype=torch.int64)
    distances = vectors.new_empty(len(vectors))
    _kernel(vectors.shape[1])(
        *(vectors.data_ptr(), len(vectors), entries.data_ptr(), len(entries)),
        *(codes.data_ptr(), distances.data_ptr(), torch.get_num_threads()),
    )
    return codes, distances


@functools.cache
def _kernel(dim: int) -> Callable[..., None]:
    nearest = compiled_library(_SOURCE, DIM=dim).nearest
    address, count = ctypes.c_void_p, ctypes.c_int64
    nearest.argtypes = [address, count, address, count, address, address, ctypes.c_int]
    nearest.restype = None
    return nearest
