"""Which images of one set lie within the neighbourhoods of another.

The neighbourhood of a vector is the ball around it that reaches its k-th nearest neighbour in its
own set. Precision, recall, density and coverage are shares of images inside such balls, so all four
come from one pass over the distances within each set, for the radii, and one across.

Distances are exact, between all pairs, in float64 and in blocks of chunk x chunk; memory beside
them is a few numbers per image. Rounding must not decide who lies on the rim of a ball, and copies
must be at distance 0: what is below 1e-12 of the vectors' squares is 0, and distances within 1e-10
of a radius are equal to it.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from stages.core.errors import DataError
from stages.metrics.feature_set import FeatureSet

__all__ = ["Neighbourhoods", "squared_radii"]

_ZERO, _RIM = 1e-12, 1e-10


@dataclass(frozen=True)
class Neighbourhoods:
    """Who lies in whose ball."""

    sample_inside: Bool[np.ndarray, " samples"]
    """In the ball, rim included, of at least one reference image; wide balls."""
    reference_inside: Bool[np.ndarray, " references"]
    """In the ball, rim included, of at least one sample; wide balls."""
    balls_around_sample: Int64[np.ndarray, " samples"]
    """Reference images whose ball holds the sample, rim excluded."""
    reference_covered: Bool[np.ndarray, " references"]
    """Whose ball holds at least one sample, rim excluded."""

    @classmethod
    def of(
        cls,
        samples: FeatureSet,
        reference: FeatureSet,
        closed_neighbours: int,
        open_neighbours: int,
    ) -> "Neighbourhoods":
        """Compare all samples with all reference images.

        Args:
            samples: Features of the samples.
            reference: Features of real images.
            closed_neighbours: k of the balls with their rim.
            open_neighbours: k of those without.

        Raises:
            DataError: If a set has no more images than neighbours are asked for.
        """
        wanted = (closed_neighbours, open_neighbours)
        rims = reference.keep(f"radii {wanted}", lambda one: squared_radii(one, wanted))
        closed_reference, open_reference = rims[0] * (1 + _RIM), rims[1] * (1 - _RIM)
        [closed_samples] = squared_radii(samples, (closed_neighbours,)) * (1 + _RIM)
        sample_inside, reference_inside = _no(samples), _no(reference)
        around = torch.zeros(len(samples), dtype=torch.int64)
        covered = _no(reference)
        for row, first in samples.blocks():
            for column, second in reference.blocks():
                squares = _squared_distances(first, second)
                sample_inside[row] |= (squares <= closed_reference[column]).any(dim=1)
                reference_inside[column] |= (squares <= closed_samples[row, None]).any(dim=0)
                held = squares < open_reference[column]
                around[row] += held.sum(dim=1)
                covered[column] |= held.any(dim=0)
        return cls(sample_inside.numpy(), reference_inside.numpy(), around.numpy(), covered.numpy())


def squared_radii(images: FeatureSet, neighbours: tuple[int, ...]) -> Float[Tensor, "k images"]:
    """Squared distance of every image to its k-th nearest neighbour, itself not counted.

    Args:
        images: The set.
        neighbours: Which k.

    Raises:
        DataError: If there are not more images than the largest k.
    """
    most = max(neighbours)
    if len(images) <= most:
        raise DataError(
            f"A set must hold more images than neighbours are asked for; there are {len(images)} "
            f"images and {most} neighbours. Draw more samples (sampling.count), look at more of "
            "the splits (evaluate.max_images), or ask for fewer neighbours."
        )
    radii = []
    for row, first in images.blocks():
        nearest = first.new_full((len(first), most), torch.inf)
        for column, second in images.blocks():
            squares = _squared_distances(first, second)
            if row == column:
                squares.fill_diagonal_(torch.inf)
            candidates = torch.cat([nearest, squares], dim=1)
            nearest = candidates.topk(most, dim=1, largest=False).values
        radii.append(nearest)
    return torch.cat(radii)[:, [k - 1 for k in neighbours]].T


def _no(images: FeatureSet) -> Bool[Tensor, " images"]:
    return torch.zeros(len(images), dtype=torch.bool)


def _squared_distances(
    first: Float64[Tensor, "rows dim"], second: Float64[Tensor, "columns dim"]
) -> Float64[Tensor, "rows columns"]:
    norms = first.square().sum(dim=1)[:, None] + second.square().sum(dim=1)
    squares = torch.addmm(norms, first, second.T, alpha=-2)
    return squares.masked_fill_(squares < _ZERO * norms, 0)
