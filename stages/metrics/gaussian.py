"""The Gaussian fitted to a set of features, kept as its mean and a factor of its covariance.

    C = F F'        F (dim, rank)

With no more images than dimensions F is the centred features themselves over sqrt(N - 1): nothing
of size dim x dim is ever made, and a singular covariance stays exactly singular. With more images,
F is the Cholesky factor of C; where C is singular all the same (features that depend on each
other), the eigenvectors above rounding. A feature that never moves (a dead unit) is a row of zeros
and costs nothing.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

__all__ = ["FeatureMoments", "Gaussian", "covariance_factor", "gaussian_of_rows"]


class FeatureMoments:
    """Mean and covariance of features, taken in batch by batch.

    Attributes:
        count: Feature vectors so far.
        mean: Their mean.
    """

    mean: Float[Tensor, " dim"]

    def __init__(self, dim: int) -> None:
        self.count = 0
        self.mean = torch.zeros(dim, dtype=torch.float64)
        self._scatter = torch.zeros(dim, dim, dtype=torch.float64)

    def update(self, features: Float[Tensor, "batch dim"]) -> None:
        """Take in one batch; pooled after Chan et al. 1979, so that large means cancel nowhere."""
        vectors = features.double().cpu()
        count, total = len(vectors), self.count + len(vectors)
        centre = vectors.mean(dim=0)
        centred, shift = vectors - centre, centre - self.mean
        self._scatter.addmm_(centred.T, centred)
        self._scatter.addr_(shift, shift, alpha=self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def covariance(self) -> Float[Tensor, "dim dim"]:
        """Unbiased covariance, as in the reference implementation; zero for a single vector."""
        return self._scatter / max(self.count - 1, 1)

    def gaussian(self) -> "Gaussian":
        """What was fitted so far."""
        covariance = self.covariance
        return Gaussian(
            self.count, self.mean, covariance_factor(covariance), torch.trace(covariance).item()
        )


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of `count` vectors."""

    count: int
    mean: Float64[Tensor, " dim"]
    factor: Float64[Tensor, "dim rank"]
    """F with F F' the unbiased covariance; of rank 0 where nothing varies."""
    spread: float
    """Trace of the covariance."""


def gaussian_of_rows(rows: Float[Tensor, "images dim"]) -> Gaussian:
    """Of few vectors: they are the factor."""
    vectors = rows.double()
    mean = vectors.mean(dim=0)
    factor = ((vectors - mean) / max(len(vectors) - 1, 1) ** 0.5).T
    return Gaussian(len(vectors), mean, factor, factor.square().sum().item())


def covariance_factor(covariance: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim rank"]:
    """F with F F' the covariance, with as many columns as it has rank."""
    moving = covariance.diagonal() > 0
    live = covariance if moving.all() else covariance[moving][:, moving]
    lower, failed = torch.linalg.cholesky_ex(live)
    if failed:
        values, vectors = torch.linalg.eigh(live)
        # Below this an eigenvalue is rounding of the largest one.
        above = values > len(values) * torch.finfo(values.dtype).eps * values[-1]
        lower = vectors[:, above] * values[above].sqrt()
    if moving.all():
        return lower
    factor = covariance.new_zeros(len(moving), lower.shape[1])
    factor[moving] = lower
    return factor
