"""Kernels for tile registers on any CPU: compiled with these registers in plain C++.

On a machine without them the tests of these kernels would say nothing. `emulated_tiles.h` holds
what the kernels ask of a CPU, and is put in front of them. That is slow, and no promise about the
rounding of real registers; machines that have them test with them.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import torch

from stages.nn.kernels import cpp_kernels, tiles

__all__ = ["tiles_of_some_kind"]

_REGISTERS = Path(__file__).with_name("emulated_tiles.h")
_KEPT = (tiles.has_tiles, tiles.tile_kernels, tiles._kernel, cpp_kernels.compiled_library)


@contextlib.contextmanager
def tiles_of_some_kind() -> Iterator[None]:
    """Have tile registers meanwhile: the machine's own, or emulated ones."""
    if tiles.has_tiles():
        yield
        return
    own_headers = cpp_kernels._with_own_headers

    def with_registers(source: Path) -> str:
        text = own_headers(source)
        uses_tiles = "_tile_loadd" in text
        return _REGISTERS.read_text(encoding="utf-8") + text if uses_tiles else text

    with (
        mock.patch.object(torch.cpu, "_is_amx_tile_supported", lambda: True),
        mock.patch.object(cpp_kernels, "_with_own_headers", with_registers),
    ):
        _forget()
        try:
            yield
        finally:
            _forget()


def _forget() -> None:
    for cached in _KEPT:
        cached.cache_clear()
