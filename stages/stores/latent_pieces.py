"""What encoding has finished so far: pieces that outlive a kill.

A piece holds the latents of some consecutive images of a split, in the bottleneck's own units. It
appears whole or not at all, so a run that was killed goes on with the pieces that are missing;
and no piece depends on another, so they may be made in any order. Each has its sha256 with it: one
that was damaged meanwhile is missing too.

The rows of an image stand together, one for each view: row = image * num_views + view.
"""

import hashlib
import os
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file, save

from stages.stores.latent_format import Rows

__all__ = ["LatentPieces"]

_DIGEST = "sha256"


@dataclass(frozen=True)
class LatentPieces:
    """The pieces of one split."""

    folder: Path
    num_images: int
    images_per_piece: int
    num_views: int

    def __len__(self) -> int:
        return -(-self.num_images // self.images_per_piece)

    @property
    def num_rows(self) -> int:
        """Rows of the split: images times views."""
        return self.num_images * self.num_views

    def images(self, piece: int) -> range:
        """The images of a piece."""
        start = piece * self.images_per_piece
        return range(start, min(start + self.images_per_piece, self.num_images))

    def missing(self) -> list[int]:
        """Pieces not yet written or damaged since, in order."""
        return [piece for piece in range(len(self)) if not self._is_whole(piece)]

    def _is_whole(self, piece: int) -> bool:
        path = self._path(piece)
        if not path.exists():
            return False
        try:
            with safe_open(path, framework="numpy") as file:
                written = (file.metadata() or {}).get(_DIGEST)
            whole = _digest(load_file(path)) == written
        except (OSError, SafetensorError):
            whole = False
        if not whole:
            print(f"{path}: damaged piece, made again", file=sys.stderr)
        return whole

    def write(self, piece: int, rows: Rows) -> None:
        """Keep a piece; when this returns its bytes are on the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        building = self._path(piece).with_suffix(".building")
        whole = {name: np.ascontiguousarray(values) for name, values in rows.items()}
        # Written by Python and not by the library: a full disk is an OSError then.
        with building.open("wb") as file:
            file.write(save(whole, metadata={_DIGEST: _digest(whole)}))
            file.flush()
            os.fsync(file.fileno())
        building.replace(self._path(piece))

    def read_piece(self, piece: int) -> Rows:
        """All rows of a piece."""
        return load_file(self._path(piece))

    def read(self, start: int, stop: int) -> Rows:
        """Rows [start, stop) of the split, which must not be empty."""
        step = self.images_per_piece * self.num_views
        parts = []
        for piece in range(start // step, -(-stop // step)):
            window = slice(max(start - piece * step, 0), stop - piece * step)
            parts.append({name: values[window] for name, values in self.read_piece(piece).items()})
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    def _path(self, piece: int) -> Path:
        return self.folder / f"{piece:08d}.safetensors"


def _digest(rows: Rows) -> str:
    digest = hashlib.sha256()
    for name in sorted(rows):
        values = np.ascontiguousarray(rows[name])
        digest.update(f"{name} {values.dtype} {values.shape}".encode())
        digest.update(values.data)
    return digest.hexdigest()
