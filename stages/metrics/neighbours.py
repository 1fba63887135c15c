"""The nearest training vectors of each sample: how near samples come to what the model was shown.

By Euclidean distance in features. The training split is streamed past the queries, so memory does
not grow with it. What the distances say stands in `stages/metrics/memorisation.py`.
"""

import torch
from jaxtyping import Float, Int
from torch import Tensor

__all__ = ["NearestNeighbours"]


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
