"""One process at a time at a place on the disk.

A lock file beside it, `.NAME.lock`, which is there only while it is held: whoever waited for it
finds that it was taken away, and makes another.
"""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

__all__ = ["alone_at", "take"]


@contextmanager
def alone_at(place: Path) -> Iterator[None]:
    """Hold a place within the block, waiting as long as it takes.

    Args:
        place: A file or folder, there already or not; its folder is made.

    Raises:
        OSError: If no file can be made beside it.
    """
    path = place.with_name(f".{place.name}.lock")
    path.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with path.open("a") as lock:
            take(lock, f"{place}: another process writes it; waiting")
            if _is_still(lock, path):
                try:
                    yield
                finally:
                    path.unlink(missing_ok=True)
                return


def take(lock: TextIO, told: str) -> None:
    """Lock an open file until it is closed, waiting as long as it takes.

    Args:
        lock: The file.
        told: Said on standard error when there is a wait.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        print(told, file=sys.stderr)
        fcntl.flock(lock, fcntl.LOCK_EX)


def _is_still(lock: TextIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
