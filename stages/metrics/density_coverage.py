"""Density and coverage: how thickly samples lie among real images, and how many they reach.

    density  = mean over samples of (real images whose ball holds the sample) / k
    coverage = share of real images whose ball holds some sample

with the ball around a real image to its k-th nearest real neighbour, without its rim. Naeem et al.
2020 (arXiv:2002.09797), Eq. 3 and 4. Real outliers weigh little, and no ball is drawn around a
sample. Density is 1 for samples like the reference and may exceed it; coverage of samples like the
reference is, for as many of both, 1 - 2^-k, so k = 5 leaves 3 percent.

Intervals: density over draws of samples, reference fixed; coverage over draws of real images,
samples fixed.

Differs: exact over all pairs in float64.
"""

from stages.metrics.base import Figure
from stages.metrics.pair import Pair

__all__ = ["density_coverage_figures"]


def density_coverage_figures(pair: Pair) -> list[Figure]:
    """Density and coverage with their intervals.

    Raises:
        DataError: If a set has no more images than neighbours are asked for.
    """
    found, neighbours = pair.neighbourhoods, pair.options.density_neighbours
    how = pair.protocol.also(neighbours=neighbours)
    density = found.balls_around_sample / neighbours
    return [
        pair.mean_figure("density", density, "1", how, over="samples"),
        pair.mean_figure("coverage", found.reference_covered, "share", how, over="reference"),
    ]
