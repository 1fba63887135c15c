"""Images and labels in the IDX format of MNIST and its successors.

    magic   00 00 08 d      unsigned bytes, d axes
    sizes   d times a 4-byte big-endian integer
    values  row by row

Source: LeCun, Cortes & Burges, "The MNIST database of handwritten digits", file formats.
"""

import gzip
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int64, UInt8

from stages.core.errors import DataError
from stages.files.published_files import find_published, published_bytes
from stages.files.torchvision_import import import_torchvision

__all__ = ["IdxSet", "pad"]


class IdxSet:
    """The four files of a set that torchvision publishes in this format.

    Args:
        name: The set's class in `torchvision.datasets`: file names, md5s, download.
        root: Holds `NAME/raw/*.gz`, as torchvision leaves them, or `*.gz` directly.
        download: Whether missing files may be fetched.
    """

    def __init__(self, name: str, root: Path, download: bool) -> None:
        self.name = name
        self.root = root
        self.download = download

    @property
    def class_names(self) -> list[str]:
        """As torchvision names them."""
        return list(self._published.classes)

    @property
    def md5s(self) -> dict[str, str]:
        """Of every file, as published."""
        return dict(self._published.resources)

    @property
    def _published(self) -> Any:
        return getattr(import_torchvision("datasets"), self.name)

    def blocks(
        self, part: str, count: int
    ) -> Iterator[tuple[UInt8[np.ndarray, "block 1 28 28"], Int64[np.ndarray, " block"]]]:
        """Images and labels in file order, `count` at a time.

        Args:
            part: `train` or `t10k`, as in the file names.
            count: Images in a block; the last one may be smaller.

        Raises:
            DataError: If a file is missing or is not the published one.
        """
        with (
            gzip.open(self._content(f"{part}-images-idx3-ubyte.gz")) as images,
            gzip.open(self._content(f"{part}-labels-idx1-ubyte.gz")) as labels,
        ):
            total, height, width = _sizes(images, 3)
            if (height, width) != (28, 28) or _sizes(labels, 1) != (total,):
                raise DataError(f"{self.root}: {part} must hold 28x28 images, one label each")
            for start in range(0, total, count):
                block = min(count, total - start)
                values = np.frombuffer(images.read(block * height * width), dtype=np.uint8)
                classes = np.frombuffer(labels.read(block), dtype=np.uint8)
                yield values.reshape(block, 1, height, width), classes.astype(np.int64)

    def _content(self, name: str) -> io.BytesIO:
        folder = f"{self.name}/raw"
        path = find_published(
            self.root,
            [f"{folder}/{name}", name],
            (lambda: self._published(self.root, download=True)) if self.download else None,
        )
        return io.BytesIO(published_bytes(path, self.md5s[name]))


def _sizes(file: gzip.GzipFile, axes: int) -> tuple[int, ...]:
    if file.read(4) != bytes([0, 0, 8, axes]):
        raise DataError(f"an IDX file of {axes} axes of unsigned bytes is needed")
    return tuple(int(size) for size in np.frombuffer(file.read(4 * axes), dtype=">u4"))


def pad(
    images: UInt8[np.ndarray, "block channels height width"], size: int
) -> UInt8[np.ndarray, "block channels {size} {size}"]:
    """Surround images with zeros, evenly; where that is impossible one more below and right."""
    before_after = [((size - side) // 2, (size - side + 1) // 2) for side in images.shape[2:]]
    return np.pad(images, [(0, 0), (0, 0), *before_after])
