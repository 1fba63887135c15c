"""Images somebody wants judged: a split of the prepared data, or any folder or archive.

Images of a folder are made what the training images are, by the reader and the rule of
`image_folder`: the centre square, resized. Folders named as classes of the data tell the classes.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from stages.core.errors import DataError
from stages.core.sections import load_member
from stages.core.shapes import ImageShape
from stages.datasets.base import SPLITS, DatasetOptions, ImageSource, Rejected
from stages.stores.prepared import Prepared

__all__ = ["GivenImages", "Piece", "open_given_images"]

_FOLDER = "image_folder"
# What a data set of another kind leaves open.
_RULE = {"filter": "lanczos", "background": "black"}


@dataclass(frozen=True)
class Piece:
    """Some images in a row."""

    first: int
    """Row of the first in the set."""
    pixels: np.ndarray
    """uint8 (count, channels, height, width)."""
    labels: np.ndarray | None
    """Classes of the data the line was trained on, int64 (count,)."""
    names: tuple[str, ...]
    """Files they come from; empty for a split."""


@dataclass
class GivenImages:
    """Images in pieces, read as they are needed."""

    title: str
    prepared: Prepared
    split: str | None
    """Name of the split; None: a folder."""
    options: DatasetOptions | None = None
    """How the folder is read."""
    rejected: list[Rejected] = field(default_factory=list)
    """Files that were left out, known when all pieces were read."""

    def pieces(self, size: int) -> Iterator[Piece]:
        """All images in order.

        Args:
            size: At most so many at a time.

        Raises:
            ArtifactError: If the split is damaged.
            DataError: If the folder is missing or holds no image that can be used.
        """
        if self.split is not None:
            split = self.prepared.split(self.split)
            for start in range(0, len(split.images), size):
                rows = slice(start, start + size)
                labels = None if split.labels is None else split.labels[rows]
                yield Piece(start, np.array(split.images[rows]), labels, ())
            return
        assert self.options is not None
        source: ImageSource = load_member(ImageSource, _FOLDER)(self.options)
        first = 0
        for block in source.blocks(self.rejected):
            labels = self._known(block.labels, source.class_names())
            for start in range(0, len(block.images), size):
                rows = slice(start, start + size)
                some = None if labels is None else labels[rows]
                yield Piece(first + start, block.images[rows], some, block.names[rows])
            first += len(block.images)

    def __len__(self) -> int:
        """Images of a split; 0 where nobody has counted them."""
        return 0 if self.split is None else len(self.prepared.split(self.split))

    def _known(self, labels: np.ndarray | None, names: list[str] | None) -> np.ndarray | None:
        """Labels by the names of the data's classes; None unless all folders are classes."""
        known = self.prepared.class_names or []
        if labels is None or names is None or not set(names) <= set(known):
            return None
        return np.array([known.index(name) for name in names], dtype=np.int64)[labels]


def open_given_images(what: str, prepared: Prepared) -> GivenImages:
    """Find out what is meant.

    Args:
        what: `train`, `validation` or `test`, or the path of a folder or zip archive.
        prepared: The data the line was trained on; they say what images have to look like.

    Raises:
        DataError: If it is neither.
    """
    if what in SPLITS:
        return GivenImages(f"{what} split of {prepared.artifact.path}", prepared, what)
    if not Path(what).exists():
        raise DataError(
            f"{what}: must be a folder or an archive of images, or one of {', '.join(SPLITS)}; "
            "nothing is there"
        )
    return GivenImages(what, prepared, None, _options(what, prepared))


def _options(path: str, prepared: Prepared) -> DatasetOptions:
    shape: ImageShape = prepared.image_shape
    if shape.height != shape.width or shape.channels not in (1, 3):
        raise DataError(
            f"{path}: folders are read as squares, grey or RGB, but the line was trained on images "
            f"of {tuple(shape)} (channels, height, width); give a split"
        )
    # The data's own rule where they come from a folder too.
    own: dict[str, Any] = prepared.artifact.about.get("options", {})
    rule = {name: own.get(name, usual) for name, usual in _RULE.items()}
    values = {
        "kind": _FOLDER,
        "path": path,
        "resolution": shape.height,
        "channels": shape.channels,
        **rule,
        "on_bad_file": "skip",
        # Asked of every source; nothing is split here and nobody watches.
        "watch": path,
        "validation_fraction": 0.5,
        "test_fraction": 0.0,
    }
    return DatasetOptions.of_kind(_FOLDER).model_validate(values)
