"""The nearest training images of samples and of test images, in the features of one network.

The training split is streamed past the queries from the disk, so memory does not grow with it.

Queries are drawn at random from each set that holds more. The first rows would not do: splits of
folders stand class by class, and the distances of one class say nothing about samples of all. Nor
would evenly spaced ones: samples take the classes in turn, and a stride can meet the same few.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from stages.core.randomness import permutation
from stages.metrics.feature_set import FeatureSet
from stages.metrics.memorisation import Memorisation, judge_distances, usual_distance
from stages.metrics.neighbours import NearestNeighbours

__all__ = ["CHOSEN", "NEIGHBOURS", "Nearest", "nearest_training_images"]

CHOSEN = "samples and test images drawn at random, without replacement"
"""Which are asked for, for the protocol."""
NEIGHBOURS = 3
"""Training images kept per query."""
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Nearest:
    """What was found; distances ascend."""

    samples: Int[np.ndarray, " samples"]
    """Places of the queried samples in their set, ascending."""
    sample_distances: Float[torch.Tensor, "samples neighbours"]
    """Of these to their nearest training images."""
    sample_rows: Int[torch.Tensor, "samples neighbours"]
    """The rows of these images in the training split."""
    test_distances: Float[torch.Tensor, "test neighbours"]
    """Of the queried test images."""

    @property
    def usual(self) -> float:
        """Median distance of test images to their nearest; the unit for people."""
        return usual_distance(self.test_distances[:, 0])

    @property
    def memorisation(self) -> Memorisation:
        """Whether samples come nearer to training images than test images do."""
        return judge_distances(self.sample_distances[:, 0], self.test_distances[:, 0])


def nearest_training_images(
    sets: dict[str, FeatureSet],
    rows: np.ndarray,
    queries: int,
    seed: int,
    between: Callable[[], None],
) -> Nearest:
    """Search the training split.

    Args:
        sets: Features of `samples`, `test` and `train` in one network.
        rows: Where each image of `train` stands in the training split.
        queries: Samples, and test images, to ask for; all where there are no more.
        seed: Which ones.
        between: Called now and then; may raise.
    """
    places = {
        # Sorted, so that a mapped file is read forwards and a whole set keeps its order.
        name: np.sort(permutation(len(sets[name]), seed, "neighbour queries", name)[:queries])
        for name in ("samples", "test")
    }
    asked = [_tensor(sets[name].features[chosen]) for name, chosen in places.items()]
    found = NearestNeighbours(torch.cat(asked), NEIGHBOURS)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        piece = slice(start, start + ROWS_AT_ONCE)
        found.update(_tensor(sets["train"].features[piece]), torch.from_numpy(rows[piece]))
        between()
    count = len(asked[0])
    return Nearest(
        places["samples"], found.distances[:count], found.rows[:count], found.distances[count:]
    )


def _tensor(features: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(features))
