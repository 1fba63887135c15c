"""Checkpoints that survive kill -9 and power loss.

A checkpoint is written under a temporary name, flushed to the disk, and renamed; the one before
is kept beside it. Reading takes the newest that is whole, so a torn or damaged file costs the
steps since the one before and nothing else.
"""

import os
import sys
from pathlib import Path
from typing import Any

import torch

__all__ = ["read_checkpoint", "write_checkpoint"]

NEWEST, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"


def write_checkpoint(folder: Path, state: dict[str, Any]) -> Path:
    """Write `state` atomically as the newest checkpoint of `folder`.

    Args:
        folder: The work folder of the run.
        state: Tensors, numbers, strings, lists and dicts: readable without pickle.

    Returns:
        Path of the checkpoint.
    """
    newest, building = folder / NEWEST, folder / "checkpoint.building.pt"
    with building.open("wb") as file:
        torch.save(state, file)
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
            return torch.load(path, map_location="cpu", weights_only=True)
        # Whatever a damaged zip makes torch raise, the answer is the same: take the one before.
        except Exception as error:
            print(f"{path}: damaged checkpoint passed over ({error})", file=sys.stderr)
    return None
