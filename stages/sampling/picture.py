"""Samples at a glance: one captioned row per class, or one grid where there are no classes."""

import math

import numpy as np
from jaxtyping import Int, UInt8
from PIL import Image

from stages.core.pictures import grid, labelled_rows

__all__ = ["class_caption", "picture_of_samples"]

_ROWS, _COLUMNS = 16, 12


def class_caption(label: int, class_names: list[str] | None) -> str:
    """The name of a class, or its number."""
    return f"class {label}" if class_names is None else class_names[label]


def picture_of_samples(
    images: UInt8[np.ndarray, "count channels height width"],
    labels: Int[np.ndarray, " count"],
    class_names: list[str] | None,
) -> Image.Image:
    """The first images of the first classes: as many as a person takes in.

    Args:
        images: In the order drawn; memory-mapped ones are read only where shown.
        labels: Class of each; -1: none.
        class_names: By label; None: classes are shown by number.
    """
    classes = np.unique(labels[labels >= 0])
    if len(classes) == 0:
        shown = images[: _ROWS * _COLUMNS]
        return grid(shown, columns=min(_COLUMNS, math.ceil(math.sqrt(len(shown)))))
    rows = [
        (class_caption(label, class_names), images[np.flatnonzero(labels == label)[:_COLUMNS]])
        for label in classes[:_ROWS].tolist()
    ]
    return labelled_rows(rows)
