"""The prepared images: three splits of uint8 arrays that are read without being loaded.

    data/prepared/{train,validation,test}/images.npy      uint8 (N, C, H, W)
                                          labels.npy      int64 (N,), of a source with classes
                                          factors.parquet one column a factor, where known
    data/prepared/manifest.json           about: image_shape, class_names, counts, statistics, ...

Written as the images come, in any number: the header of an .npy file has room for a longer first
axis, so it is written for no images and once more, in place, for all of them.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import numpy as np
import pandas
import pyarrow
from jaxtyping import Int64, UInt8
from pyarrow import parquet

from stages.core.artifacts import Artifact, open_artifact, read_array, reading
from stages.core.errors import ArtifactError
from stages.core.shapes import ImageShape

__all__ = ["TYPE", "Prepared", "PreparedSplit", "PreparedWriter", "open_prepared"]

TYPE = "prepared"
"""Type of the artifact."""


@dataclass(frozen=True)
class PreparedSplit:
    """One split, memory-mapped."""

    images: UInt8[np.ndarray, "count channels height width"]
    """A read-only memory map."""
    labels: Int64[np.ndarray, " count"] | None
    """Class of each image; None without classes."""
    factors: pandas.DataFrame | None
    """Generative factors of each image, where they are known."""

    def __len__(self) -> int:
        return len(self.images)


@dataclass(frozen=True)
class Prepared:
    """The artifact of `prepare`."""

    artifact: Artifact
    image_shape: ImageShape
    class_names: list[str] | None
    """Indexed by label; None without classes."""

    @property
    def num_classes(self) -> int:
        """Number of classes; 0 without classes."""
        return len(self.class_names or [])

    def split(self, name: str) -> PreparedSplit:
        """Open `train`, `validation` or `test` after verifying the bytes of its files.

        Raises:
            ArtifactError: If a file is damaged or cannot be read.
        """
        images = read_array(self.artifact, f"{name}/images.npy", mapped=True)
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            raise ArtifactError(
                f"{self.artifact.path}/{name}/images.npy: must hold uint8 images of shape "
                f"{tuple(self.image_shape)}, holds {images.dtype} {images.shape[1:]}; run "
                "`prepare` again"
            )
        labels = factors = None
        if f"{name}/labels.npy" in self.artifact.files:
            labels = read_array(self.artifact, f"{name}/labels.npy")
        if f"{name}/factors.parquet" in self.artifact.files:
            with reading(self.artifact, f"{name}/factors.parquet") as path:
                factors = pandas.read_parquet(path)
        return PreparedSplit(images, labels, factors)


def open_prepared(path: Path) -> Prepared:
    """Open the artifact of `prepare`.

    Raises:
        ArtifactError: If it is missing, unfinished or not prepared images.
    """
    artifact = open_artifact(path, TYPE)
    about = artifact.about
    return Prepared(artifact, ImageShape(*about["image_shape"]), about["class_names"])


class PreparedWriter:
    """Writes splits block by block and counts what it writes; a context manager.

    Args:
        folder: The artifact being built.
        shape: Shape of every image.
    """

    def __init__(self, folder: Path, shape: ImageShape) -> None:
        self._folder = folder
        self._shape = shape
        self._splits: dict[str, _SplitWriter] = {}

    def __enter__(self) -> "PreparedWriter":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for split in self._splits.values():
            split.close()

    def add(
        self,
        name: str,
        images: UInt8[np.ndarray, "count channels height width"],
        labels: Int64[np.ndarray, " count"] | None,
        factors: Mapping[str, np.ndarray],
    ) -> None:
        """Append images to a split; whether there are labels and factors must never change."""
        assert images.shape[1:] == self._shape, (images.shape, self._shape)
        if len(images) == 0:
            return
        if name not in self._splits:
            self._splits[name] = _SplitWriter(self._folder / name, self._shape)
        self._splits[name].add(images, labels, factors)

    def counts(self) -> dict[str, int]:
        """Images in each split that has some."""
        return {name: split.images.count for name, split in self._splits.items()}

    def class_counts(self, name: str, num_classes: int) -> list[int]:
        """Images of each class in a split."""
        counts = self._splits[name].class_counts
        return _add_counts(counts, np.zeros(num_classes, dtype=np.int64)).tolist()

    def statistics(self, name: str) -> dict[str, list[float]]:
        """Mean and standard deviation of each channel of a split, intensities in 0..1."""
        return self._splits[name].statistics()


class _SplitWriter:
    def __init__(self, folder: Path, shape: ImageShape) -> None:
        folder.mkdir()
        self._folder = folder
        self.images = _GrowingArray(folder / "images.npy", np.dtype(np.uint8), shape)
        self._labels: _GrowingArray | None = None
        self._factors: parquet.ParquetWriter | None = None
        self.class_counts = np.zeros(0, dtype=np.int64)
        # Sums of integers: the statistics do not depend on the size of the blocks.
        self._histogram = np.zeros((shape.channels, 256), dtype=np.int64)

    def add(
        self, images: np.ndarray, labels: np.ndarray | None, factors: Mapping[str, np.ndarray]
    ) -> None:
        first = self.images.count == 0
        self.images.append(images)
        for channel, counts in enumerate(self._histogram):
            counts += np.bincount(images[:, channel].ravel(), minlength=256)
        if first and labels is not None:
            self._labels = _GrowingArray(self._folder / "labels.npy", np.dtype(np.int64), ())
        assert (labels is None) == (self._labels is None), "labels for some images only"
        if self._labels is not None:
            self._labels.append(labels)
            self.class_counts = _add_counts(self.class_counts, np.bincount(labels))
        table = pyarrow.table(dict(factors))
        if first and factors:
            self._factors = parquet.ParquetWriter(self._folder / "factors.parquet", table.schema)
        if self._factors is not None:
            self._factors.write_table(table)

    def statistics(self) -> dict[str, list[float]]:
        values = np.arange(256) / 255
        shares = self._histogram / self._histogram.sum(axis=1, keepdims=True)
        mean = shares @ values
        deviation = np.sqrt((shares * (values - mean[:, None]) ** 2).sum(axis=1))
        return {"mean": mean.tolist(), "std": deviation.tolist()}

    def close(self) -> None:
        for part in (self.images, self._labels, self._factors):
            if part is not None:
                part.close()


def _add_counts(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    total = np.zeros(max(len(one), len(other)), dtype=np.int64)
    total[: len(one)] += one
    total[: len(other)] += other
    return total


class _GrowingArray:
    """An .npy file to which rows are appended."""

    def __init__(self, path: Path, dtype: np.dtype, row_shape: tuple[int, ...]) -> None:
        self.count = 0
        self._dtype = dtype
        self._row_shape = tuple(row_shape)
        self._file = path.open("wb")
        self._write_header()
        self._start = self._file.tell()

    def append(self, rows: np.ndarray) -> None:
        assert rows.dtype == self._dtype and rows.shape[1:] == self._row_shape
        self._file.write(np.ascontiguousarray(rows).data)
        self.count += len(rows)

    def close(self) -> None:
        self._file.seek(0)
        self._write_header()
        assert self._file.tell() == self._start, "the header has outgrown its place"
        self._file.close()

    def _write_header(self) -> None:
        header = {
            "descr": np.lib.format.dtype_to_descr(self._dtype),
            "fortran_order": False,
            "shape": (self.count, *self._row_shape),
        }
        np.lib.format.write_array_header_1_0(self._file, header)
