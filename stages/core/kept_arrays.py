"""Arrays that unfinished work keeps beside it: a file is whole or not there, and damage is noticed.

A file is what `numpy.savez` writes, a zip archive of .npy files. Zip archives know the checksum of
what is in them; it is compared when that is read, so a flipped bit does not pass for a result.
"""

import os
import sys
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path

import numpy as np

__all__ = ["read_arrays", "write_arrays"]


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write a file that is in its place only when all of it is on the disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    building = path.with_name(f".{path.name}")
    with building.open("wb") as file:
        np.savez(file, **arrays)
        file.flush()
        os.fsync(file.fileno())
    building.replace(path)


def read_arrays(path: Path) -> dict[str, np.ndarray] | None:
    """Read all of a file.

    Returns:
        Its arrays; None if it is not there or damaged. A damaged one is named on standard error and
        removed: its work is to be done again.
    """
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zlib.error):
        print(f"{path}: damaged piece, made again", file=sys.stderr)
        path.unlink()
        return None
