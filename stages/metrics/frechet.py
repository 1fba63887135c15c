"""Distance between two sets of images: the Frechet distance of Gaussians fitted to features.

    d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2))

Heusel et al. 2017 (arXiv:1706.08500), Eq. 6, after Dowson & Landau 1982. The trace of the last
root is the sum of the singular values of C1^(1/2) C2^(1/2), both symmetric roots from eigenvalues:
real, never negative, and exact for singular covariances, where a general matrix root is not.

Differs: FID is this distance in the features of one Inception network. In any other features the
numbers are on another scale, so figures here are named by their features and never FID. All sums
are float64. The estimate is biased upwards by about 1/N: compare only equal N, and beside every
distance stands its floor, train against test images, which no model can be expected to beat.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from stages.metrics.base import Figure, Protocol

__all__ = ["FeatureMoments", "frechet_distance", "frechet_figure"]


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
        self._scatter += centred.T @ centred
        self._scatter += torch.outer(shift, shift) * (self.count * count / total)
        self.mean = self.mean + shift * (count / total)
        self.count = total

    @property
    def covariance(self) -> Float[Tensor, "dim dim"]:
        """Unbiased covariance, as in the reference implementation; zero for a single vector."""
        return self._scatter / max(self.count - 1, 1)


def frechet_distance(first: FeatureMoments, second: FeatureMoments) -> float:
    """Squared Frechet distance of the two fitted Gaussians; 0 if and only if they are equal."""
    between = (first.mean - second.mean).square().sum()
    roots = _symmetric_root(first.covariance) @ _symmetric_root(second.covariance)
    spread = torch.trace(first.covariance) + torch.trace(second.covariance)
    overlap = torch.linalg.svdvals(roots).sum()
    # Rounding can leave equal sets a hair below 0.
    return max((between + spread - 2 * overlap).item(), 0.0)


def _symmetric_root(matrix: Float[Tensor, "dim dim"]) -> Float[Tensor, "dim dim"]:
    values, vectors = torch.linalg.eigh(matrix)
    return (vectors * values.clamp_min(0).sqrt()) @ vectors.T


def frechet_figure(
    name: str, images: FeatureMoments, reference: FeatureMoments, protocol: Protocol
) -> Figure:
    """The distance of `images` from `reference` as a figure; names both counts."""
    how = protocol.also(
        feature_dim=len(reference.mean),
        reference_n=reference.count,
        covariance="unbiased, float64",
    )
    value = frechet_distance(images, reference)
    return Figure(name, value, "squared feature distance", "lower", images.count, how)
