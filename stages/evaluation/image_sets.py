"""A set of images to be compared with others: rows of a memory-mapped array, named by content."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Int64, UInt8

from stages.core.shapes import ImageShape, Pixels

__all__ = ["ImageSet"]

ROWS_PER_READ = 256


@dataclass(frozen=True)
class ImageSet:
    """Some images of an array, in order."""

    name: str
    """Key among the sets of a comparison: `test`, `train`, `reconstructions`, `samples`."""
    images: UInt8[np.ndarray, "count channels height width"]
    """Memory-mapped."""
    rows: Int64[np.ndarray, " rows"]
    """Which of them."""
    labels: Int64[np.ndarray, " rows"] | None
    """Class of each row; None without classes."""
    shows: str
    """What images they are, for protocols."""

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> ImageShape:
        """Of one image."""
        return ImageShape(*self.images.shape[1:])

    def pixels(self, start: int, stop: int) -> Pixels:
        """Images [start, stop) of the set."""
        return torch.from_numpy(np.array(self.images[self.rows[start:stop]]))

    @cached_property
    def digest(self) -> str:
        """sha256 of shape and pixels in order: equal sets have equal names, wherever they lie."""
        content = hashlib.sha256(repr((len(self), *self.shape)).encode())
        for piece in self._pieces():
            content.update(np.ascontiguousarray(self.images[piece]).data)
        return content.hexdigest()

    def _pieces(self) -> Iterator[np.ndarray]:
        for start in range(0, len(self), ROWS_PER_READ):
            yield self.rows[start : start + ROWS_PER_READ]
