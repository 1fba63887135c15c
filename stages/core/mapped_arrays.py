"""New arrays that are written through a map of their file.

What is written through a map has no error: where the disk is full, the kernel ends the process. So
all of the file is given its place on the disk first, which fails in the usual way.
"""

import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import DTypeLike

__all__ = ["new_mapped_array"]


def new_mapped_array(path: Path, dtype: DTypeLike, shape: Sequence[int]) -> np.memmap:
    """An array of zeros in a new `.npy` file.

    Args:
        path: The file; replaced if it exists.
        dtype: Of its numbers.
        shape: Its size along every axis.

    Raises:
        OSError: If the disk has not enough room.
    """
    array = np.lib.format.open_memmap(path, mode="w+", dtype=dtype, shape=tuple(shape))
    # Not on macOS.
    if hasattr(os, "posix_fallocate"):
        _take_room(path)
    return array


def _take_room(path: Path) -> None:
    with path.open("r+b") as file:
        try:
            os.posix_fallocate(file.fileno(), 0, os.fstat(file.fileno()).st_size)
        except OSError as error:
            # Some file systems cannot say beforehand.
            if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise OSError(error.errno, error.strerror, str(path)) from None
