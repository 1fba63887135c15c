"""MNIST: 60,000 + 10,000 handwritten digits, 28x28, grey.

Source: LeCun, Bottou, Bengio & Haffner 1998, "Gradient-based learning applied to document
recognition". Files, md5s and download are those of torchvision.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from stages.core.shapes import ImageShape
from stages.datasets.base import (
    DatasetOptions,
    ImageBlock,
    ImageSource,
    Rejected,
    images_per_block,
)
from stages.files.idx_files import IdxSet, pad

__all__ = ["Mnist", "MnistOptions"]


class MnistOptions(DatasetOptions):
    """Options of `mnist`."""

    kind: Literal["mnist"]
    root: str = Field(min_length=1)
    """Folder that holds `MNIST/raw/*.gz`, as torchvision leaves it, or the four files."""
    download: bool
    """Whether torchvision may fetch the files into `root` when they are missing."""
    resolution: int = Field(ge=28)
    """Side of the images; 28x28 are surrounded by zeros, e.g. to 32, which halves evenly."""

    @property
    def image_shape(self) -> ImageShape:
        """One channel of `resolution` x `resolution`."""
        return ImageShape(1, self.resolution, self.resolution)

    @property
    def num_classes(self) -> int:
        """Ten."""
        return 10


class Mnist(ImageSource):
    """MNIST in its official order and split."""

    def __init__(self, options: MnistOptions) -> None:
        self.options = options
        self._files = IdxSet("MNIST", Path(options.root), options.download)

    def blocks(self, rejected: list[Rejected]) -> Iterator[ImageBlock]:
        """The training part, then the official test part."""
        count = images_per_block(self.options.image_shape)
        for part, split in (("train", "train"), ("t10k", "test")):
            for images, labels in self._files.blocks(part, count):
                yield ImageBlock(pad(images, self.options.resolution), labels, split)

    def class_names(self) -> list[str]:
        """The ten digits, as torchvision names them."""
        return self._files.class_names

    def provenance(self) -> dict[str, Any]:
        """The published md5s, which every file was compared with."""
        return {"files": {name: {"md5": md5} for name, md5 in self._files.md5s.items()}}
