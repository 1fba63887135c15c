"""The 1,797 handwritten digits that come with scikit-learn: 8x8, grey, offline.

The counts 0..16 of the original become intensities v = round(255 c / 16).

Source: Alpaydin & Kaynak 1998, "Optical Recognition of Handwritten Digits", UCI repository (the
test part of it, as scikit-learn ships it).
"""

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any, Literal

import numpy as np

from stages.core.shapes import ImageShape
from stages.datasets.base import DatasetOptions, ImageBlock, ImageSource, Rejected

__all__ = ["Digits", "DigitsOptions"]


class DigitsOptions(DatasetOptions):
    """Options of `digits`: none of its own."""

    kind: Literal["digits"]

    @property
    def image_shape(self) -> ImageShape:
        """One channel of 8x8."""
        return ImageShape(1, 8, 8)

    @property
    def num_classes(self) -> int:
        """Ten."""
        return 10


class Digits(ImageSource):
    """scikit-learn's digits in its order, without an official test split."""

    def __init__(self, options: DigitsOptions) -> None: ...

    def blocks(self, rejected: list[Rejected]) -> Iterator[ImageBlock]:
        """One block: the whole set takes 115 kB."""
        # Not above: it takes a second, and every stage loads this module to check the options.
        from sklearn.datasets import load_digits

        digits = load_digits()
        images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
        yield ImageBlock(images, digits.target.astype(np.int64))

    def class_names(self) -> list[str]:
        """The ten digits."""
        return [str(digit) for digit in range(10)]

    def provenance(self) -> dict[str, Any]:
        """The library's version stands for the data it ships."""
        return {"scikit-learn": version("scikit-learn")}
