"""What encoding has finished so far: pieces that outlive a kill.

A piece holds the latents of some consecutive images of a split, in the bottleneck's own units. It
appears whole or not at all, so a run that was killed goes on with the pieces that are missing;
and no piece depends on another, so they may be made in any order.

The rows of an image stand together, one for each view: row = image * num_views + view.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from stages.stores.latent_format import Rows

__all__ = ["LatentPieces"]


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
        """Pieces not yet written, in order."""
        return [piece for piece in range(len(self)) if not self._path(piece).exists()]

    def write(self, piece: int, rows: Rows) -> None:
        """Keep a piece; when this returns its bytes are on the disk."""
        self.folder.mkdir(parents=True, exist_ok=True)
        building = self._path(piece).with_suffix(".building")
        save_file({name: np.ascontiguousarray(values) for name, values in rows.items()}, building)
        with building.open("rb") as file:
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
