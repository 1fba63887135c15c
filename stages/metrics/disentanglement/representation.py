"""The door of the disentanglement scores: latents and factors of the same images, checked once.

    latents    float64 (images, latent_dims)   posterior means in the autoencoder's own units
    factors    int64 (images, factors)         rank of each value among the values of its factor

Images run along the first axis, of both, everywhere; a matrix between the two is (latent_dims,
factors). The published programs keep images along the last axis in one place and along the first in
the next; a reshape where a transposition was meant has given scores near zero for years
(YannDubs/disentangling-vae, issue 78). Here nothing is ever transposed, and what comes the wrong
way round is refused.

Latents are continuous; the scores that count read them in `num_bins` bins of equal width between
the smallest and the largest value of each latent (Locatello et al. 2019, arXiv:1811.12359, with 20
of them). Scaling a latent changes no bin. A factor of more values than there are bins can not be
read whole from one latent.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from stages.core.errors import DataError

__all__ = [
    "NUM_BINS",
    "FactorScore",
    "Representation",
    "contingency",
    "equal_width_bins",
    "gap_to_second",
    "represent",
]

NUM_BINS = 20


@dataclass(frozen=True)
class Representation:
    """Latents and factors of the same images; made by `represent`."""

    latents: Float64[np.ndarray, "images latent_dims"]
    factors: Int64[np.ndarray, "images factors"]
    """Each factor counts its values from 0, none is missing."""
    names: tuple[str, ...]
    categorical: tuple[bool, ...]
    """Whether the values of a factor have no order, like a shape; a position has one."""

    @property
    def num_images(self) -> int:
        """Images, n of every figure."""
        return len(self.latents)

    @property
    def num_factors(self) -> int:
        """Factors."""
        return self.factors.shape[1]

    @property
    def num_values(self) -> tuple[int, ...]:
        """Values each factor takes."""
        return tuple(int(values) + 1 for values in self.factors.max(axis=0))


@dataclass(frozen=True)
class FactorScore:
    """A score between 0 and 1, higher is better, and what each factor contributes."""

    score: float
    per_factor: Float64[np.ndarray, " factors"]


def represent(
    latents: np.ndarray,
    factors: np.ndarray,
    names: Sequence[str] | None = None,
    categorical: Sequence[bool] | None = None,
) -> Representation:
    """Check latents and factors of the same images.

    Args:
        latents: Floating-point numbers (images, latent_dims).
        factors: Integers (images, factors); equal where the factor is equal, in its order.
        names: Of the factors; by default 0, 1, ...
        categorical: Whether a factor's values have no order; by default all have one.

    Raises:
        DataError: If axes or types are not these, a latent is not finite, there are fewer than
            two latents or factors, or a factor never changes.
    """
    if latents.ndim != 2 or factors.ndim != 2 or len(latents) != len(factors):
        raise DataError(
            "latents (images, latent_dims) and factors (images, factors) must be of the same "
            f"images, which run along the first axis of both; got {latents.shape} and "
            f"{factors.shape}; transpose them (`.T`, never a reshape)"
        )
    if latents.dtype.kind != "f" or factors.dtype.kind not in "iu":
        raise DataError(
            "latents must be floating-point numbers and factors integers; got "
            f"{latents.dtype} and {factors.dtype}; are they the other way round?"
        )
    count, latent_dims, num_factors = *latents.shape, factors.shape[1]
    if count <= max(latent_dims, num_factors) or min(latent_dims, num_factors) < 2:
        raise DataError(
            "there must be at least two latents and two factors, and more images than either; "
            f"got {count} images, {latent_dims} latents and {num_factors} factors; images run "
            "along the first axis"
        )
    if not np.isfinite(latents).all():
        raise DataError("latents must be finite numbers; the autoencoder's training diverged")
    names = [str(index) for index in range(num_factors)] if names is None else names
    categorical = [False] * num_factors if categorical is None else categorical
    assert len(names) == len(categorical) == num_factors
    ranks = [np.unique(column, return_inverse=True)[1] for column in factors.T]
    for name, column in zip(names, ranks, strict=True):
        if column.max() == 0:
            raise DataError(f"factor {name!r} must take two values at least; leave it out")
    return Representation(
        latents.astype(np.float64),
        np.stack(ranks, axis=1).astype(np.int64),
        tuple(names),
        tuple(bool(value) for value in categorical),
    )


def equal_width_bins(
    latents: Float64[np.ndarray, "images latent_dims"], num_bins: int = NUM_BINS
) -> Int64[np.ndarray, "images latent_dims"]:
    """The bin, from 0, of every latent number; all in bin 0 where a latent never changes."""
    low, high = latents.min(axis=0), latents.max(axis=0)
    span = np.where(high > low, high - low, 1.0)
    bins = ((latents - low) / span * num_bins).astype(np.int64)
    # The largest value closes the last bin.
    return np.minimum(bins, num_bins - 1)


def contingency(
    rows: Int64[np.ndarray, " images"], columns: Int64[np.ndarray, " images"]
) -> Int64[np.ndarray, "rows columns"]:
    """How many images hold each pair of values, both counted from 0."""
    shape = (int(rows.max()) + 1, int(columns.max()) + 1)
    return np.bincount(rows * shape[1] + columns, minlength=shape[0] * shape[1]).reshape(shape)


def gap_to_second(
    matrix: Float64[np.ndarray, "latent_dims factors"],
) -> Float64[np.ndarray, " factors"]:
    """For each factor, how far its best latent stands above its second best."""
    ordered = np.sort(matrix, axis=0)
    return ordered[-1] - ordered[-2]
