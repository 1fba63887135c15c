"""Fashion-MNIST: 60,000 + 10,000 pictures of clothes, 28x28, grey.

Source: Xiao, Rasul & Vollgraf 2017, arXiv:1708.07747. Files, md5s and download are those of
torchvision.
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

__all__ = ["FashionMnist", "FashionMnistOptions"]


class FashionMnistOptions(DatasetOptions):
    """Options of `fashion_mnist`."""

    kind: Literal["fashion_mnist"]
    root: str = Field(min_length=1)
    """Folder that holds `FashionMNIST/raw/*.gz`, as torchvision leaves it, or the four files."""
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


class FashionMnist(ImageSource):
    """Fashion-MNIST in its official order and split."""

    def __init__(self, options: FashionMnistOptions) -> None:
        self.options = options
        self._files = IdxSet("FashionMNIST", Path(options.root), options.download)

    def blocks(self, rejected: list[Rejected]) -> Iterator[ImageBlock]:
        """The training part, then the official test part."""
        count = images_per_block(self.options.image_shape)
        for part, split in (("train", "train"), ("t10k", "test")):
            for images, labels in self._files.blocks(part, count):
                yield ImageBlock(pad(images, self.options.resolution), labels, split)

    def class_names(self) -> list[str]:
        """The ten kinds of clothes."""
        return self._files.class_names

    def provenance(self) -> dict[str, Any]:
        """The published md5s, which every file was compared with."""
        return {"files": {name: {"md5": md5} for name, md5 in self._files.md5s.items()}}
