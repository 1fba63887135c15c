"""The nearest training images of samples and of test images, in the features of one network.

The training split is streamed past the queries from the disk, so memory does not grow with it.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

from stages.metrics.feature_set import FeatureSet
from stages.metrics.memorisation import Memorisation, judge_distances
from stages.metrics.neighbours import NearestNeighbours

__all__ = ["NEIGHBOURS", "Nearest", "nearest_training_images"]

NEIGHBOURS = 3
"""Training images kept per query."""
ROWS_AT_ONCE = 1024


@dataclass(frozen=True)
class Nearest:
    """What was found; distances ascend."""

    sample_distances: Float[torch.Tensor, "samples neighbours"]
    """Of the queried samples, the first of the set, to their nearest training images."""
    sample_rows: Int[torch.Tensor, "samples neighbours"]
    """The rows of these images in the training split."""
    test_distances: Float[torch.Tensor, "test neighbours"]
    """Of the queried test images, the first of the set."""

    @property
    def usual(self) -> float:
        """Median distance of test images to their nearest; the unit for people."""
        # Test images that all recur in training would have distance 0.
        median = self.test_distances[:, 0].median()
        return median.clamp_min(torch.finfo(torch.float32).eps).item()

    @property
    def memorisation(self) -> Memorisation:
        """Whether samples come nearer to training images than test images do."""
        return judge_distances(self.sample_distances[:, 0], self.test_distances[:, 0])


def nearest_training_images(
    sets: dict[str, FeatureSet], rows: np.ndarray, queries: int, between: Callable[[], None]
) -> Nearest:
    """Search the training split.

    Args:
        sets: Features of `samples`, `test` and `train` in one network.
        rows: Where each image of `train` stands in the training split.
        queries: Samples, and test images, to ask for.
        between: Called now and then; may raise.
    """
    asked = [_tensor(sets[name].features[:queries]) for name in ("samples", "test")]
    found = NearestNeighbours(torch.cat(asked), NEIGHBOURS)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        piece = slice(start, start + ROWS_AT_ONCE)
        found.update(_tensor(sets["train"].features[piece]), torch.from_numpy(rows[piece]))
        between()
    samples = len(asked[0])
    return Nearest(found.distances[:samples], found.rows[:samples], found.distances[samples:])


def _tensor(features: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.array(features))
