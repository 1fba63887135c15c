"""The most memory that a piece of work takes beyond what was there before; Linux only.

Memory of its own: pages of mapped files, which the kernel takes back when it needs them, are not
counted. The kernel keeps the largest size that a process ever had and forgets it on request. Memory
that was given back must really be gone, or work would seem to take none: glibc is told to map every
block of 64 kB and more by itself, and to unmap it when it is freed.
"""

import ctypes
import gc
from collections.abc import Callable
from functools import cache
from pathlib import Path

__all__ = ["peak_bytes"]

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"
_MAP_FROM = -3
"""M_MMAP_THRESHOLD of mallopt(3)."""


def peak_bytes(run: Callable[[], object]) -> int:
    """Run once; the largest size meanwhile less the size before, in bytes."""
    _map_large_blocks()
    gc.collect()
    _CLEAR.write_text(_FORGET_PEAK, encoding="ascii")
    before = _kilobytes("RssAnon")
    run()
    # There is no peak of memory of one's own; pages of files stay once they were touched.
    return max(0, _kilobytes("VmHWM") - _kilobytes("RssFile") - before) * 1024


@cache
def _map_large_blocks() -> None:
    ctypes.CDLL(None).mallopt(_MAP_FROM, 1 << 16)


def _kilobytes(name: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise AssertionError(f"{_STATUS} has no {name}")
