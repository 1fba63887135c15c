"""All distances between two sets of images; a new one is a file and a line here."""

from collections.abc import Callable

from stages.metrics.base import Figure
from stages.metrics.density_coverage import density_coverage_figures
from stages.metrics.frechet import frechet_figures
from stages.metrics.frechet_infinity import frechet_infinity_figures
from stages.metrics.kernel import kernel_figures
from stages.metrics.pair import Pair
from stages.metrics.precision_recall import precision_recall_figures
from stages.metrics.score import score_figures

__all__ = ["DISTANCES", "all_distances"]

DISTANCES: tuple[Callable[[Pair], list[Figure]], ...] = (
    frechet_figures,
    frechet_infinity_figures,
    kernel_figures,
    precision_recall_figures,
    density_coverage_figures,
    score_figures,
)


def all_distances(pair: Pair) -> list[Figure]:
    """Every figure of the pair; the reference is fitted once, however many pairs share it.

    Raises:
        DataError: If a set is too small for what is asked of it.
    """
    return [figure for figures in DISTANCES for figure in figures(pair)]
