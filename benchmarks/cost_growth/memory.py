"""The most memory that a piece of work takes beyond what was there before; Linux with glibc only.

Memory of its own: pages of mapped files, which the kernel takes back when it needs them, are not
counted. The kernel keeps the largest size that a process ever had and forgets it on request. What
earlier work freed, glibc keeps to hand out again, and the kernel would see nothing of it: so it is
made to give back all that is free beforehand.
"""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path

__all__ = ["peak_bytes"]

_STATUS = Path("/proc/self/status")
_CLEAR = Path("/proc/self/clear_refs")
_FORGET_PEAK = "5"


def peak_bytes(run: Callable[[], object]) -> int:
    """Run once; the largest size meanwhile less the size before, in bytes."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)
    _CLEAR.write_text(_FORGET_PEAK, encoding="ascii")
    before = _kilobytes("RssAnon")
    run()
    # There is no peak of memory of one's own; pages of files stay once they were touched.
    return max(0, _kilobytes("VmHWM") - _kilobytes("RssFile") - before) * 1024


def _kilobytes(name: str) -> int:
    for line in _STATUS.read_text(encoding="ascii").splitlines():
        if line.startswith(name + ":"):
            return int(line.split()[1])
    raise AssertionError(f"{_STATUS} has no {name}")
