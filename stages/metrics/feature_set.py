"""A set of images as a network sees it: features, logits and labels, read in chunks.

Every distance between sets of images compares two of these. The arrays are usually memory-mapped
files, so a set may be larger than memory; whoever computes reads it `CHUNK_BYTES` at a time and
states what it keeps besides.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float32, Float64, Int, Int64
from torch import Tensor

from stages.core.errors import DataError
from stages.metrics.gaussian import FeatureMoments, Gaussian, gaussian_of_rows

__all__ = ["CHUNK_BYTES", "CHUNK_IMAGES", "FeatureSet"]

T = TypeVar("T")

CHUNK_BYTES = 1 << 25
"""Bytes of features per chunk as float64, the type all sums are taken in: 2048 vectors of 2048."""
CHUNK_IMAGES = 2048
"""Limit for short vectors: all pairs of two chunks are held at once, 32 MiB."""


@dataclass(frozen=True)
class FeatureSet:
    """What a network says about a set of images; row i of each array is image i.

    Raises:
        DataError: If the arrays are not about the same images, or there are none.
    """

    features: Float32[np.ndarray, "images dim"]
    """Usually memory-mapped."""
    logits: Float32[np.ndarray, "_ classes"] | None
    """None: the network knows no classes."""
    labels: Int64[np.ndarray, " _"] | None
    """The class asked for (samples) or shown (real images); None: there are no classes."""

    _kept: dict[str, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not len(self.features):
            raise DataError("A set of features must hold at least one image; it is empty.")
        for what, rows in (("logits", self.logits), ("labels", self.labels)):
            if rows is not None and len(rows) != len(self):
                raise DataError(
                    f"Features and {what} must be of the same images; there are {len(self)} "
                    f"feature vectors and {len(rows)} {what}. Extract the features again."
                )

    def __len__(self) -> int:
        return len(self.features)

    @property
    def dim(self) -> int:
        """Length of a feature vector."""
        return self.features.shape[1]

    @property
    def chunk(self) -> int:
        """Images per chunk: at most `CHUNK_BYTES` of float64 features, at most `CHUNK_IMAGES`."""
        return min(max(CHUNK_BYTES // (8 * self.dim), 1), CHUNK_IMAGES)

    def chunks(self) -> Iterator[Float32[np.ndarray, "chunk dim"]]:
        """The features in order, `chunk` rows at a time, in memory."""
        for start in range(0, len(self), self.chunk):
            yield np.ascontiguousarray(self.features[start : start + self.chunk])

    def blocks(self) -> Iterator[tuple[slice, Float64[Tensor, "chunk dim"]]]:
        """The same in float64, each with its rows."""
        start = 0
        for chunk in self.chunks():
            yield slice(start, start + len(chunk)), torch.from_numpy(chunk).double()
            start += len(chunk)

    def keep(self, name: str, compute: Callable[["FeatureSet"], T]) -> T:
        """What `compute` finds in this set, computed once: a reference meets many other sets."""
        if name not in self._kept:
            self._kept[name] = compute(self)
        return self._kept[name]

    @property
    def gaussian(self) -> Gaussian:
        """Mean and covariance, computed once."""
        return self.keep("gaussian", FeatureSet._fit)

    def _fit(self) -> Gaussian:
        if len(self) <= self.dim:
            return gaussian_of_rows(torch.from_numpy(np.array(self.features)))
        moments = FeatureMoments(self.dim)
        for chunk in self.chunks():
            moments.update(torch.from_numpy(chunk))
        return moments.gaussian()

    def rows(self, chosen: Int[np.ndarray, " chosen"]) -> "FeatureSet":
        """The images at these places, copied into memory in this order."""
        return FeatureSet(
            np.asarray(self.features[chosen]),
            None if self.logits is None else np.asarray(self.logits[chosen]),
            None if self.labels is None else np.asarray(self.labels[chosen]),
        )

    def of_class(self, label: int) -> "FeatureSet | None":
        """The images of one class, copied into memory; None where there are none."""
        assert self.labels is not None, "asked for a class of a set without labels"
        chosen = np.flatnonzero(self.labels == label)
        return self.rows(chosen) if len(chosen) else None
