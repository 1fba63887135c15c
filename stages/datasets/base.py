"""The family of image sources.

A source hands over uint8 images of one fixed shape, one by one or in blocks, already assigned to
a split or left to the content-hash split of `prepare`. It never holds the whole set in memory.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydantic import Field, model_validator

from stages.core.sections import MemberOptions
from stages.core.shapes import ImageShape

__all__ = [
    "SPLITS",
    "DatasetOptions",
    "ImageBlock",
    "ImageSource",
    "Rejected",
    "Split",
    "images_per_block",
]

Split = Literal["train", "validation", "test"]
SPLITS: tuple[Split, ...] = ("train", "validation", "test")


class DatasetOptions(MemberOptions):
    """What every source is asked for, beside its own parameters."""

    watch: str = Field(min_length=1)
    """Path DVC watches: `prepare` runs again when it changes; data/README.md for none."""
    validation_fraction: float = Field(gt=0, lt=1)
    """Share of images, by content hash, held out for validation (of what is not official test)."""
    test_fraction: float = Field(ge=0, lt=1)
    """Share of images, by content hash, for test; ignored where the source has an official test."""

    @model_validator(mode="after")
    def _leave_some_to_train_on(self) -> "DatasetOptions":
        if self.validation_fraction + self.test_fraction >= 1:
            raise ValueError(
                "validation_fraction + test_fraction must stay below 1, so that images are left "
                f"to train on; they are {self.validation_fraction} and {self.test_fraction}"
            )
        return self

    @property
    def image_shape(self) -> ImageShape:
        """Shape of the images the source will give with these options."""
        raise NotImplementedError

    @property
    def num_classes(self) -> int | None:
        """Classes the source will give; None where that is known once it was read."""
        return None


def images_per_block(shape: ImageShape) -> int:
    """How many images of a shape a source should hand over at once: about 8 MiB of them."""
    return max(1, 2**23 // shape.dims)


@dataclass(frozen=True)
class ImageBlock:
    """Some consecutive images of a source."""

    images: np.ndarray
    """uint8, (count, channels, height, width)."""
    labels: np.ndarray | None = None
    """int64 (count,), or None for a source without classes."""
    split: Literal["train", "test"] | None = None
    """Official split, or None when the content hash is to decide."""
    factors: dict[str, np.ndarray] = field(default_factory=dict)
    """Known generative factors, name -> (count,)."""
    names: tuple[str, ...] = ()
    """Files they were read from, where each has its own."""


@dataclass(frozen=True)
class Rejected:
    """A file that is not an image of the set, and why."""

    path: str
    reason: str


class ImageSource(ABC):
    """A source of images. Built from its options alone; opens nothing before `blocks` is called."""

    @abstractmethod
    def __init__(self, options: Any) -> None: ...

    @abstractmethod
    def blocks(self, rejected: list[Rejected]) -> Iterator[ImageBlock]:
        """Yield all images in a fixed order, a bounded number at a time.

        Args:
            rejected: Files that are not images are appended here, never silently dropped.

        Raises:
            DataError: If the data are missing, corrupt as a whole, or not what was promised.
        """

    @abstractmethod
    def class_names(self) -> list[str] | None:
        """Names of the classes, indexed by label; None when the source has no classes.

        Called after `blocks` is exhausted.
        """

    def provenance(self) -> dict[str, Any]:
        """Where the bytes came from (files and their sha256, library versions); plain JSON."""
        return {}
