"""Checkpoints that survive kill -9, power loss and damage.

A checkpoint is written under a temporary name, flushed to the disk, and renamed; the one before
is kept beside it. Reading takes the newest that is whole, so a torn or damaged file costs the
steps since the one before and nothing else.

    file = what torch.save writes, a zip archive | sha256 of it, 32 bytes

torch does not compare the checksums of its archives: without ours, a flipped bit in the weights
would be loaded without a word and end in other bytes than an undisturbed run.
"""

import hashlib
import os
import sys
from pathlib import Path
from typing import Any, BinaryIO

import torch

__all__ = ["read_checkpoint", "write_checkpoint"]

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
DIGEST_BYTES = 32
CHUNK = 2**20


def write_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write `state` atomically as the newest checkpoint of `folder`.

    Args:
        folder: The work folder of the run.
        state: Tensors, numbers, strings, lists and dicts: readable without pickle.

    Returns:
        Path of the checkpoint.
    """
    newest, building = folder / NEWEST, folder / "checkpoint.building.pt"
    with building.open("w+b") as file:
        try:
            torch.save(state, file)
        except RuntimeError as error:
            raise _cause(error) from None
        size = file.tell()
        file.seek(0)
        digest = _digest(file, size)
        file.seek(size)
        file.write(digest)
        file.flush()
        os.fsync(file.fileno())
    if newest.exists():
        newest.replace(folder / PREVIOUS)
    building.replace(newest)
    return newest


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint of `folder`, on the CPU; None when there is none."""
    for path in (folder / NEWEST, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            _require_whole(path)
            return torch.load(path, map_location="cpu", weights_only=True)
        # Whatever a damaged zip makes torch raise, the answer is the same: take the one before.
        except Exception as error:
            print(f"{path}: damaged checkpoint passed over ({error})", file=sys.stderr)
    return None


def _cause(error: BaseException) -> BaseException:
    """What the disk said, where torch's archive, closed half-written, says something else."""
    within: BaseException | None = error
    while within is not None and not isinstance(within, OSError):
        within = within.__context__
    return error if within is None else within


def _require_whole(path: Path) -> None:
    size = path.stat().st_size - DIGEST_BYTES
    with path.open("rb") as file:
        found = _digest(file, size)
        if file.read() != found:
            raise ValueError("its bytes do not have the sha256 they were written with")


def _digest(file: BinaryIO, size: int) -> bytes:
    """Sha256 of the next `size` bytes."""
    digest = hashlib.sha256()
    while size > 0 and (chunk := file.read(min(CHUNK, size))):
        digest.update(chunk)
        size -= len(chunk)
    return digest.digest()
