"""Features of sets of images, computed once: whole files that outlive a kill, found by content.

    FOLDER/KEY/features.npy    float32 (images, feature_dim)
               logits.npy      float32 (images, num_classes), of a network with classes
               entry.json      what KEY is the sha256 of, and the sha256 of both files

KEY stands for all that shapes the numbers: network, weights, code, what is done to the pixels, and
the pixels themselves in order. So a split that two lines share is looked at once, whatever they are
called and wherever they lie, and an entry never goes stale.

Written piece by piece into KEY.building, which says how many rows are safe: a run that was killed
goes on after its last whole piece. Pieces begin at fixed rows, so a run in two halves leaves the
bytes of one in a go. Features are memory-mapped: no set is held in memory.

A folder keeps at most `limit` bytes of entries that the process at hand did not use; the least
recently used go first.
"""

import fcntl
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.core.artifacts import file_sha256, write_json
from stages.core.mapped_arrays import new_mapped_array
from stages.core.progress import progress
from stages.evaluation.image_sets import ImageSet
from stages.extractors.base import Extractor
from stages.metrics.feature_set import FeatureSet

__all__ = ["FeatureStore"]

FORMAT = 1
BATCHES_PER_PIECE = 16
ENTRY, ROWS = "entry.json", "rows.json"


class FeatureStore:
    """A folder of features.

    Args:
        folder: Where the entries stand; made when the first is written.
        device: Where networks compute.
        between_pieces: Called when a piece is safe; may raise.
    """

    def __init__(
        self, folder: Path, device: torch.device, between_pieces: Callable[[], None]
    ) -> None:
        self.folder, self._device, self._between = folder, device, between_pieces
        self._used: set[str] = set()

    def features(self, network: Extractor, images: ImageSet) -> FeatureSet:
        """Features of a set in a network, computed if they are not there.

        Raises:
            Interrupted: If the stage was asked to stop; finished pieces are kept.
        """
        about = self._about(network, images)
        key = hashlib.sha256(json.dumps(about, sort_keys=True).encode()).hexdigest()
        path = self.folder / key
        self._used.add(key)
        with _locked(self.folder, key):
            if not _is_whole(path):
                shutil.rmtree(path, ignore_errors=True)
                self._build(path, network, images, about)
            os.utime(path)
            arrays = {name: np.load(path / name, mmap_mode="c") for name in _shapes(network, 0)}
        return FeatureSet(
            features=arrays["features.npy"],
            logits=arrays.get("logits.npy"),
            labels=images.labels,
        )

    def prune(self, limit: int) -> None:
        """Remove entries this object did not use, the least recently used first.

        Args:
            limit: Bytes that may stay, unfinished entries included.
        """
        others = [
            path
            for path in self.folder.glob("*")
            if path.is_dir() and path.name.partition(".")[0] not in self._used
        ]
        others.sort(key=lambda path: path.stat().st_mtime_ns, reverse=True)
        kept = 0
        for path in others:
            kept += sum(file.stat().st_size for file in path.iterdir())
            if kept > limit:
                with _locked(self.folder, path.name.partition(".")[0]):
                    shutil.rmtree(path, ignore_errors=True)

    def _about(self, network: Extractor, images: ImageSet) -> dict[str, Any]:
        """All that shapes the numbers."""
        return {
            "format": FORMAT,
            "network": network.name,
            "weights": network.checksum,
            "code": network.code_digest,
            "pixels": asdict(network.rule(images.shape)),
            "images": images.digest,
            # Other machines and versions may round otherwise.
            "device": self._device.type,
            "torch": str(torch.__version__),
        }

    def _build(
        self, path: Path, network: Extractor, images: ImageSet, about: dict[str, Any]
    ) -> None:
        building = path.with_name(f"{path.name}.building")
        building.mkdir(exist_ok=True)
        there = _safe_rows(building)
        arrays = {
            name: np.lib.format.open_memmap(building / name, "r+")
            if there
            else new_mapped_array(building / name, np.float32, shape)
            for name, shape in _shapes(network, len(images)).items()
        }
        at_once = network.images_at_once(images.shape)
        label = f"{images.name} in {network.name}"
        with progress(len(images), there, "image", label) as bar:
            for start in range(there, len(images), at_once * BATCHES_PER_PIECE):
                stop = min(start + at_once * BATCHES_PER_PIECE, len(images))
                for first in range(start, stop, at_once):
                    rows = slice(first, min(first + at_once, stop))
                    self._write(arrays, rows, network, images)
                    bar.advance(rows.stop - rows.start)
                for array in arrays.values():
                    array.flush()
                _set_safe_rows(building, stop)
                self._between()
        files = {name: file_sha256(building / name) for name in arrays}
        write_json(building / ENTRY, {"about": about, "files": files})
        (building / ROWS).unlink()
        building.replace(path)

    def _write(
        self, arrays: dict[str, np.memmap], rows: slice, network: Extractor, images: ImageSet
    ) -> None:
        pixels = images.pixels(rows.start, rows.stop).to(self._device)
        features, logits = network.features(pixels)
        arrays["features.npy"][rows] = features.cpu().numpy()
        if logits is not None:
            arrays["logits.npy"][rows] = logits.cpu().numpy()


def _shapes(network: Extractor, count: int) -> dict[str, tuple[int, int]]:
    shapes = {"features.npy": (count, network.feature_dim)}
    return shapes | ({"logits.npy": (count, network.num_classes)} if network.num_classes else {})


def _is_whole(path: Path) -> bool:
    """Whether an entry is there and its bytes are those that were written."""
    try:
        files = json.loads((path / ENTRY).read_bytes())["files"]
        return all(file_sha256(path / name) == checksum for name, checksum in files.items())
    except (OSError, ValueError, KeyError):
        return False


def _safe_rows(building: Path) -> int:
    try:
        return int(json.loads((building / ROWS).read_bytes())["rows"])
    except (OSError, ValueError, KeyError):
        return 0


def _set_safe_rows(building: Path, rows: int) -> None:
    fresh = building / f"{ROWS}.building"
    write_json(fresh, {"rows": rows})
    fresh.replace(building / ROWS)


@contextmanager
def _locked(folder: Path, key: str) -> Iterator[None]:
    """Within, no other process writes or removes the entry."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / f"{key}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
