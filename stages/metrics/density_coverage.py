"""Density and coverage: how thickly samples lie among real images, and how many they reach.

    density  = mean over samples of (real images whose ball holds the sample) / k
    coverage = share of real images whose ball holds some sample

with the ball around a real image to its k-th nearest real neighbour, without its rim. Naeem et al.
2020 (arXiv:2002.09797), Eq. 3 and 4. Real outliers weigh little, and no ball is drawn around a
sample. Density is 1 for samples like the reference and may exceed it; coverage of samples like the
reference is, for as many of both, 1 - 2^-k, so k = 5 leaves 3 percent.

Intervals: of density the bootstrap over samples, reference fixed; of coverage the exact one of a
share of real images, samples fixed and radii too. Other real images would bring other radii, and
the figure varies by 7 to 16 % more than the interval allows for (normal sets of 360 and 1,000
images in 8 and 16 dimensions). Its protocol says so.

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
    fixed = how.also(radii="held fixed in the interval, which is a little narrow for that")
    density = found.balls_around_sample / neighbours
    return [
        pair.mean_figure("density", density, "1", how, over="samples"),
        pair.mean_figure("coverage", found.reference_covered, "share", fixed, over="reference"),
    ]
