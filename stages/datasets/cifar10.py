"""CIFAR-10: 50,000 + 10,000 colour photographs, 32x32, ten classes.

Source: Krizhevsky 2009, "Learning Multiple Layers of Features from Tiny Images". Files, md5s and
download are those of torchvision. The files are pickles: none is read before its md5 was
found to be the published one, and then as arrays and nothing else.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from stages.core.shapes import ImageShape
from stages.datasets.base import (
    DatasetOptions,
    ImageBlock,
    ImageSource,
    Rejected,
    images_per_block,
)
from stages.files.array_pickles import read_array_pickle
from stages.files.published_files import find_published, published_bytes
from stages.files.torchvision_import import import_torchvision

__all__ = ["Cifar10", "Cifar10Options"]


class Cifar10Options(DatasetOptions):
    """Options of `cifar10`."""

    kind: Literal["cifar10"]
    root: str = Field(min_length=1)
    """Folder that holds `cifar-10-batches-py/` (torchvision's layout) or its files directly; each
    file may be compressed on its own as `NAME.xz`, which costs seconds a file to unpack."""
    download: bool
    """Whether torchvision may fetch the files into `root` when they are missing."""

    @property
    def image_shape(self) -> ImageShape:
        """Three channels of 32x32."""
        return ImageShape(3, 32, 32)

    @property
    def num_classes(self) -> int:
        """Ten."""
        return 10


class Cifar10(ImageSource):
    """CIFAR-10 in its official order and split, one of its six files at a time."""

    def __init__(self, options: Cifar10Options) -> None:
        self.options = options
        self._names: list[str] = []

    def blocks(self, rejected: list[Rejected]) -> Iterator[ImageBlock]:
        """The five training files, then the official test file."""
        published = _published()
        meta = self._read(published.meta["filename"], published.meta["md5"])
        self._names = list(meta[published.meta["key"]])
        count = images_per_block(self.options.image_shape)
        for files, split in ((published.train_list, "train"), (published.test_list, "test")):
            for name, md5 in files:
                content = self._read(name, md5)
                images = content["data"].reshape(-1, *self.options.image_shape)
                labels = np.asarray(content["labels"], dtype=np.int64)
                for start in range(0, len(images), count):
                    rows = slice(start, start + count)
                    yield ImageBlock(images[rows], labels[rows], split)

    def class_names(self) -> list[str]:
        """The ten classes, as the set's own `batches.meta` names them."""
        return self._names

    def provenance(self) -> dict[str, Any]:
        """The published md5s, which the unpacked content of every file was compared with."""
        published = _published()
        files = [*published.train_list, *published.test_list]
        files.append([published.meta["filename"], published.meta["md5"]])
        return {"files": {name: {"md5": md5} for name, md5 in files}}

    def _read(self, name: str, md5: str) -> dict[str, Any]:
        root, published = Path(self.options.root), _published()
        folder = published.base_folder
        path = find_published(
            root,
            [f"{folder}/{name}", f"{folder}/{name}.xz", name, f"{name}.xz"],
            (lambda: published(root, download=True)) if self.options.download else None,
        )
        content: dict[str, Any] = read_array_pickle(published_bytes(path, md5), str(path))
        return content


def _published() -> Any:
    return import_torchvision("datasets").CIFAR10
