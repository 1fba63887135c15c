"""Whether images show the class that was asked for, in the eyes of the line's judge.

class_accuracy                   of samples
reconstruction_class_accuracy    of reconstructions: whether the first stage keeps the class
test_class_accuracy              of the test images themselves: the judge errs too
"""

import numpy as np
import pandas as pd
import torch

from stages.metrics.base import Figure, Protocol
from stages.metrics.class_accuracy import ClassAccuracy
from stages.metrics.feature_set import FeatureSet

__all__ = ["AskedClasses"]

NAMES = {
    "class_accuracy": "samples",
    "reconstruction_class_accuracy": "reconstructions",
    "test_class_accuracy": "test",
}
SETS = ("test", "reconstructions", "samples")


class AskedClasses:
    """Right and wrong images of each set.

    Args:
        sets: `samples`, `reconstructions` and `test` as the network sees them. A set without labels
            has no accuracy.
        num_classes: Of the data; 0: none, or other ones than the network's.
        suffix: Behind the names of the figures.
    """

    def __init__(self, sets: dict[str, FeatureSet], num_classes: int, suffix: str) -> None:
        self._suffix = suffix
        self._counts = {name: ClassAccuracy(num_classes) for name in SETS}
        for name, counts in self._counts.items():
            seen = sets[name]
            if num_classes and seen.logits is not None and seen.labels is not None:
                logits = torch.from_numpy(np.array(seen.logits))
                counts.update(logits, torch.from_numpy(np.array(seen.labels)))

    def figures(self, protocols: dict[str, Protocol]) -> list[Figure]:
        """Accuracies, each with the protocol of its set."""
        return [
            self._counts[of].figure(name + self._suffix, protocols[of])
            for name, of in NAMES.items()
            if self._counts[of].asked.sum() > 0
        ]

    def table(self) -> pd.DataFrame:
        """One row per class; empty cells where nothing was asked for."""
        return pd.DataFrame(
            {
                f"{of}_{what}": values
                for of, counts in self._counts.items()
                for what, values in (("images", counts.asked), ("accuracy", counts.per_class))
            }
        )
