"""Kernels of our own in C++, compiled when they are first needed.

With the compiler, the flags and the folder of compiled code of `torch.compile`, in a few seconds;
the next process finds them there. How PyTorch does that it keeps to itself: a build that cannot
goes on without kernels.
"""

import functools
from pathlib import Path
from typing import Any

__all__ = ["can_compile", "compiled_library"]


def can_compile() -> bool:
    """Whether this build of PyTorch compiles C++ in the way that is known here."""
    return _code_cache() is not None


def compiled_library(source: Path, **constants: str | int) -> Any:
    """The functions of a C++ file, for `ctypes`.

    Args:
        source: The file.
        constants: What it leaves to be defined, by name.
    """
    defined = "".join(f"#define {name} {value}\n" for name, value in constants.items())
    return _code_cache().load(defined + source.read_text(encoding="utf-8"))


@functools.cache
def _code_cache() -> Any:
    """What `torch.compile` compiles C++ with, or None."""
    # Imported here: every stage imports this file, few compile, and it takes seconds.
    try:
        from torch._inductor.codecache import CppCodeCache
    except ImportError:
        return None
    return CppCodeCache
