"""In which order a training sees its rows: a new shuffle for every epoch, a function of the seed.

Batches are consecutive pieces of one order after another; the last, short piece of an epoch is
completed from the order of the next.
"""

import numpy as np

from stages.core.randomness import permutation

__all__ = ["BatchOrder"]


class BatchOrder:
    """Rows of every step.

    Args:
        num_examples: Rows there are.
        batch_size: Rows of a step.
        seed: Root of the shuffles.
    """

    def __init__(self, num_examples: int, batch_size: int, seed: int) -> None:
        self._count, self._size, self._seed = num_examples, batch_size, seed
        self._order: tuple[int, np.ndarray] | None = None

    def rows(self, step: int) -> np.ndarray:
        """Rows of the step's batch, int64 (batch_size,)."""
        places = np.arange(step * self._size, (step + 1) * self._size)
        epochs = places // self._count
        rows = np.empty(self._size, dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            rows[chosen] = self._epoch_order(int(epoch))[places[chosen] % self._count]
        return rows

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            self._order = (epoch, permutation(self._count, self._seed, "epoch", epoch))
        return self._order[1]
