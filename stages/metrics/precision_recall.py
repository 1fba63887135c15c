"""Precision and recall: are samples among real images, and real images among samples?

    precision = share of samples in the ball of some real image, to its 3rd nearest real neighbour
    recall    = share of real images in the ball of some sample, to its 3rd nearest sample

Kynkaanniemi et al. 2019 (arXiv:1904.06991), Eq. 1 and 2; the ball holds its rim. A real outlier has
a huge ball, so precision can be too kind: density is not (`density_coverage.py`). Both depend on
the number of images: compare only equal N.

Both are shares of images that are independent of each other once the balls stand, so both intervals
are exact: that of precision over samples, reference fixed, that of recall over real images, samples
fixed. The N of recall is that of the real images; as it hangs on how many samples there are, its
protocol says `samples_n`.

Differs: exact over all pairs in float64.
"""

from stages.metrics.base import Figure
from stages.metrics.pair import Pair

__all__ = ["precision_recall_figures"]


def precision_recall_figures(pair: Pair) -> list[Figure]:
    """Precision and recall with their intervals.

    Raises:
        DataError: If a set has no more images than neighbours are asked for.
    """
    found = pair.neighbourhoods
    how = pair.protocol.also(neighbours=pair.options.precision_neighbours)
    return [
        pair.mean_figure("precision", found.sample_inside, "share", how, over="samples"),
        pair.mean_figure("recall", found.reference_inside, "share", how, over="reference"),
    ]
