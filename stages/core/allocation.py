"""Memory that one step of a training frees is memory that the next one wants again.

glibc hands free memory at the end of its heap back to the system and, a moment later, takes it
anew; the kernel then zeroes every page at its first touch. Steps of an autoencoder, which hold and
free some hundred megabytes of activations, paid for that with an eighth of their time
(docs/speed.md).
"""

import ctypes
import platform

__all__ = ["keep_freed_memory"]

# Of mallopt(3).
_TRIM_THRESHOLD = -1
_MMAP_THRESHOLD = -3
_NEVER = 2**31 - 1


def keep_freed_memory() -> None:
    """Let this process keep what it frees, up to the most it ever held; only glibc is asked."""
    if platform.libc_ver()[0] != "glibc":
        return
    libc = ctypes.CDLL(None)
    # Blocks from 128 KB on would be maps of their own, handed back one by one.
    libc.mallopt(_MMAP_THRESHOLD, _NEVER)
    libc.mallopt(_TRIM_THRESHOLD, _NEVER)
