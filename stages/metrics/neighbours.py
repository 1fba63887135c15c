"""Is it memorising? The nearest training images of each sample, and how near they are.

A model that copies its training set has samples much nearer to training images than fresh test
images are. In the features of the judge, by Euclidean distance,

    ratio = median_samples(distance to nearest train) / median_test(distance to nearest train)

About 1 for a model that generalises; towards 0 for one that copies; above 1 for samples off the
data. (The comparison of Meehan et al. 2020, arXiv:2004.05675, reduced to its medians.)

The training split is streamed past the queries, so memory does not grow with it.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from stages.metrics.base import Figure, Protocol

__all__ = ["NearestNeighbours", "memorisation_figure"]


class NearestNeighbours:
    """For each query the nearest vectors of a set that is streamed past.

    Attributes:
        distances: To the nearest vectors so far, ascending; infinite before there are enough.
        rows: Their places in the stream.
    """

    distances: Float[Tensor, "queries neighbours"]
    rows: Int[Tensor, "queries neighbours"]

    def __init__(self, queries: Float[Tensor, "queries dim"], neighbours: int) -> None:
        self._queries = queries
        shape = (len(queries), neighbours)
        self.distances = torch.full(shape, torch.inf, device=queries.device)
        self.rows = torch.full(shape, -1, dtype=torch.int64, device=queries.device)

    def update(self, features: Float[Tensor, "batch dim"], rows: Int[Tensor, " batch"]) -> None:
        """Compare with the next vectors of the stream; `rows` says where they stand."""
        # Differences, not |a|^2 + |b|^2 - 2ab: a planted copy has to come out at exactly 0.
        distances = torch.cdist(
            self._queries, features, compute_mode="donot_use_mm_for_euclid_dist"
        )
        candidates = torch.cat([self.distances, distances], dim=1)
        places = torch.cat([self.rows, rows.expand(len(self._queries), -1)], dim=1)
        # Stable: among equals the earlier row wins, however the stream is cut.
        order = candidates.argsort(dim=1, stable=True)[:, : self.rows.shape[1]]
        self.distances = candidates.gather(1, order)
        self.rows = places.gather(1, order)


def memorisation_figure(
    samples: Float[Tensor, " samples"], test: Float[Tensor, " test"], protocol: Protocol
) -> Figure:
    """Ratio of the median distances to the nearest training image, samples over test images."""
    # Test images that all recur in training would have distance 0.
    usual = test.double().median().clamp_min(torch.finfo(torch.float32).eps)
    ratio = samples.double().median() / usual
    how = protocol.also(
        distance="Euclidean, in features",
        against="the same distance of test images",
        test_n=len(test),
    )
    return Figure("neighbour_distance_ratio", ratio.item(), "1", "none", len(samples), how)
