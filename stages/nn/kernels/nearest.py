"""The nearest entry of a codebook for each vector.

    code(v) = argmin over k of ||v - e_k||^2 = argmin over k of ||e_k||^2 - 2 <v, e_k>

All in float32, whatever autocast says: in bfloat16 neighbours change (8 bits of mantissa against
the small differences between large distances).

A product and a search behind it, chunk by chunk. They write every distance and read it again,
which of short vectors takes longer than to compute them. So code that is compiled in any case has a
kernel of our own instead, nearest.cpp, which keeps them in registers: 8,192 vectors of 16 numbers
among 512 take 1.3 ms on one core with AVX-512 and 0.65 on two, where product and search take 3.7
and 3.5; 16,384 of 8 among 16,384 take 44 and 26 for 206 and 186.
"""

import ctypes
import functools
from collections.abc import Callable
from pathlib import Path

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.nn.kernels.cpp_kernels import can_compile, compiled_library
from stages.nn.kernels.operators import operator

__all__ = ["Codebook", "Vectors", "nearest"]

# Distances held at once where vectors are short: 1 MB stays in a CPU's cache.
_DISTANCES_AT_ONCE = 1 << 18
# So many times as many keep an accelerator busy.
_TIMES_ON_ACCELERATORS = 64

# The kernel is faster for vectors of so many numbers at most,
_LONGEST = 64
# in a codebook of so many, 1 MB, which stays in the cache next to a core.
_LARGEST = 1 << 18

_SOURCE = Path(__file__).with_suffix(".cpp")

Vectors = Float[Tensor, "vectors dim"]
Codebook = Float[Tensor, "codes dim"]
Found = tuple[Int[Tensor, " vectors"], Float[Tensor, " vectors"]]


@torch.no_grad()
def nearest(vectors: Vectors, codebook: Codebook) -> Found:
    """The nearest codebook entry of each vector; of equally near ones, the first.

    Args:
        vectors: What to look up.
        codebook: Where.

    Returns:
        Codes, and squared distances.
    """
    compiled = torch.compiler.is_compiling() and vectors.device.type == "cpu"
    with torch.autocast(vectors.device.type, enabled=False):
        look_up = _compiled if compiled else _by_products
        return look_up(vectors.float(), codebook.float())


def _by_products(vectors: Vectors, codebook: Codebook) -> Found:
    norms = codebook.square().sum(dim=1)
    # No fewer rows than twice `dim`, or reading the codebook again for every chunk would cost more
    # than half of writing the distances. They take at most twice the codebook's memory.
    times = 1 if vectors.device.type == "cpu" else _TIMES_ON_ACCELERATORS
    rows = max(2 * vectors.shape[1], times * _DISTANCES_AT_ONCE // len(codebook))
    # One piece of memory for all chunks: what is found of each lies between what is freed, so that
    # an allocator may take new memory for every one of them, codes x vectors in the end.
    held = vectors.new_empty(min(rows, len(vectors)), len(codebook))
    found = [
        _smallest(torch.addmm(norms, chunk, codebook.T, alpha=-2, out=held[: len(chunk)]))
        for chunk in vectors.split(rows)
    ]
    codes, values = (torch.cat(parts) for parts in zip(*found, strict=True))
    distances = values + torch.linalg.vector_norm(vectors, dim=1).square()
    return codes, distances.clamp_min(0)


def _smallest(
    distances: Float[Tensor, "rows codes"],
) -> tuple[Int[Tensor, " rows"], Float[Tensor, " rows"]]:
    """Where the smallest number of each row first stands, and that number."""
    if distances.device.type == "cpu":
        # PyTorch looks at one number after the other; NumPy at as many as a register holds.
        codes = torch.from_numpy(distances.numpy().argmin(axis=1))
    else:
        codes = distances.argmin(dim=1)
    return codes, distances.gather(1, codes.unsqueeze(1)).squeeze(1)


def _suits_the_kernel(vectors: Vectors, codebook: Codebook) -> bool:
    short = vectors.shape[1] <= _LONGEST and codebook.numel() <= _LARGEST
    return short and can_compile()


def _by_kernel(vectors: Vectors, codebook: Codebook) -> Found:
    vectors, codebook = vectors.contiguous(), codebook.contiguous()
    codes = vectors.new_empty(len(vectors), dtype=torch.int64)
    distances = vectors.new_empty(len(vectors))
    _kernel(vectors.shape[1])(
        *(vectors.data_ptr(), len(vectors), codebook.data_ptr(), len(codebook)),
        *(codes.data_ptr(), distances.data_ptr(), torch.get_num_threads()),
    )
    return codes, distances


@functools.cache
def _kernel(dim: int) -> Callable[..., None]:
    look_up = compiled_library(_SOURCE, DIM=dim).nearest
    address, count = ctypes.c_void_p, ctypes.c_int64
    look_up.argtypes = [address, count, address, count, address, address, ctypes.c_int]
    look_up.restype = None
    return look_up


def _on_a_cpu(vectors: Vectors, codebook: Codebook) -> Found:
    by_kernel = _suits_the_kernel(vectors, codebook)
    return (_by_kernel if by_kernel else _by_products)(vectors, codebook)


_compiled = operator(
    "nearest(Tensor vectors, Tensor codebook) -> (Tensor, Tensor)",
    lambda vectors, codebook: (
        vectors.new_empty(len(vectors), dtype=torch.int64),
        vectors.new_empty(len(vectors)),
    ),
    CPU=_on_a_cpu,
)
