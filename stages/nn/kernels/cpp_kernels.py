"""Kernels of our own in C++, compiled when they are first needed.

With the compiler, the flags and the folder of compiled code of `torch.compile`, in a few seconds;
the next process finds them there. How PyTorch does that it keeps to itself: a build that cannot
goes on without kernels.
"""

import functools
import re
from pathlib import Path
from typing import Any

import torch

__all__ = ["NUMBERS", "can_compile", "compiled_library", "has_compiler"]

NUMBERS = {torch.bfloat16: "c10::BFloat16", torch.float32: "float"}
"""What C++ calls the numbers of a dtype."""

_OWN_HEADER = re.compile(r'^#include "(.+)"$', re.MULTILINE)


def has_compiler() -> bool:
    """Whether PyTorch finds a C++ compiler."""
    # Imported here: every stage imports this file, few compile, and these take seconds.
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


@functools.cache
def can_compile() -> bool:
    """Whether there is a compiler, which this build of PyTorch calls in the way known here."""
    try:
        return has_compiler() and _code_cache() is not None
    except ImportError:
        return False


@functools.cache
def compiled_library(source: Path, **constants: str | int) -> Any:
    """The functions of a C++ file, for `ctypes`.

    Args:
        source: The file. What it includes from its own folder is put in there: what was compiled
            before is known by its text.
        constants: What it leaves to be defined, by name.
    """
    defined = "".join(f"#define {name} {value}\n" for name, value in constants.items())
    return _code_cache().load(defined + _with_own_headers(source))


def _with_own_headers(source: Path) -> str:
    def text(line: re.Match[str]) -> str:
        return source.with_name(line[1]).read_text(encoding="utf-8")

    return _OWN_HEADER.sub(text, source.read_text(encoding="utf-8"))


@functools.cache
def _code_cache() -> Any:
    """What `torch.compile` compiles C++ with, or None."""
    # Imported here: every stage imports this file, few compile, and it takes seconds.
    try:
        from torch._inductor.codecache import CppCodeCache
    except ImportError:
        return None
    return CppCodeCache
