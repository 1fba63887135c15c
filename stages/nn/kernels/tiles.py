"""Kernels of our own that multiply with the tile registers of a CPU (AMX, in bfloat16).

They take the place of what a compiled training would do otherwise, on machines that have these
registers and with builds of PyTorch that compile C++ in the way that is known here. Everywhere
else, and in code that is not compiled, layers are computed as they stand.
"""

import ctypes
import functools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.nn.kernels.cpp_kernels import can_compile, compiled_library

__all__ = [
    "BLOCK",
    "call_kernel",
    "has_tiles",
    "tile_kernels",
    "trains_in_bfloat16",
    "trains_with_tiles",
]

BLOCK = 32
"""Rows and columns that are multiplied at once; tokens and widths must be multiples of it."""


def trains_with_tiles(x: Tensor) -> bool:
    """Whether this is an input to a compiled training, on a machine with tile registers."""
    return (
        torch.compiler.is_compiling()
        and torch.is_grad_enabled()
        and x.device.type == "cpu"
        and _has_tiles()
    )


def trains_in_bfloat16(x: Tensor) -> bool:
    """Whether this is one whose products are in bfloat16."""
    return (
        trains_with_tiles(x)
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
    )


@functools.cache
def tile_kernels(source: Path, **constants: str | int) -> Any:
    """The functions of a C++ file that includes tiles.h, for `ctypes`; see `compiled_library`."""
    library = compiled_library(source, **constants)
    # Of the process, not of the library; asking again does no harm.
    library.ask_for_tiles()
    return library


def call_kernel(source: Path, name: str, tensors: Sequence[Tensor | None], *sizes: int) -> None:
    """Call a function of such a file that takes addresses, then sizes, then threads.

    Args:
        source: The file.
        name: Of the function.
        tensors: Given row by row, by their addresses; what is written into must be so already.
        sizes: Numbers of rows and columns.
    """
    # Kept until the call is over.
    dense = [None if each is None else each.contiguous() for each in tensors]
    addresses = [None if each is None else each.data_ptr() for each in dense]
    kernel = _kernel(source, name, len(addresses), len(sizes))
    kernel(*addresses, *sizes, torch.get_num_threads())


@functools.cache
def _kernel(source: Path, name: str, addresses: int, sizes: int) -> Callable[..., None]:
    kernel = getattr(tile_kernels(source), name)
    kernel.argtypes = [*(ctypes.c_void_p,) * addresses, *(ctypes.c_int64,) * sizes, ctypes.c_int]
    kernel.restype = None
    return kernel


@torch.compiler.assume_constant_result
def _has_tiles() -> bool:
    return has_tiles()


@functools.cache
def has_tiles() -> bool:
    """Whether this machine has tile registers, and this build of PyTorch compiles for them."""
    if not (torch.cpu._is_amx_tile_supported() and can_compile()):
        return False
    return bool(compiled_library(_PROBE).ask_for_tiles())


_PROBE = Path(__file__).with_name("tiles.h")
