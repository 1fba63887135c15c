"""Whether samples are of each class as often as the test images they are held against.

Samples take the classes of `sampling.classes` in turn; where the data have classes of unlike size,
a distance then also counts that the shares differ, which says nothing about the model. By

    TV = 1/2 sum over classes |share of samples - share of test images|

in [0, 1], the share of samples that would have to be of another class. The floor is of training
images, with the shares of their split, so a model need not come down to it, however good. A small
test split has other shares than the data by chance alone; what chance explains is not told. The
samples' counts are no chance but set, so the test is one of fit: Pearson's (1900) of the test
images' counts against as many, in the samples' shares.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int
from scipy.stats import chisquare

from stages.evaluation.image_sets import ImageSet

__all__ = ["NOTABLE", "ClassShares", "class_shares"]

NOTABLE = 0.05
"""TV above which it is told."""
CHANCE = 0.05
"""Probability of such test images, drawn with the samples' shares, below which they are held for
unlike: so often it is told where shares are alike and the test split is small."""

Counts = Int[np.ndarray, " classes"]


@dataclass(frozen=True)
class ClassShares:
    """How many samples and test images are of each class."""

    samples: Counts
    test: Counts
    names: tuple[str, ...]

    @property
    def distance(self) -> float:
        """TV."""
        return float(np.abs(_shares(self.samples) - _shares(self.test)).sum() / 2)

    @property
    def flagged(self) -> bool:
        """Whether the shares differ notably, and by more than chance."""
        return self.distance > NOTABLE and self.chance < CHANCE

    @property
    def chance(self) -> float:
        """Of test images so unlike the samples' shares or more, were these also the data's."""
        asked = self.samples > 0
        if self.test[~asked].any():
            return 0.0  # chance brings no image of a class that no sample is of
        if asked.sum() == 1:
            return 1.0
        expected = _shares(self.samples) * self.test.sum()
        return float(chisquare(self.test[asked], expected[asked]).pvalue)

    @property
    def verdict(self) -> str:
        """What differs and what to do, in one line for people."""
        samples, test = _shares(self.samples), _shares(self.test)
        most = int(np.abs(samples - test).argmax())
        return (
            f"Class shares differ: {self.distance:.0%} of the samples would have to be of another "
            f"class to have the shares of the test images; most of all, {self.names[most]} has "
            f"{samples[most]:.0%} of the samples and {test[most]:.0%} of the test "
            "images. Distances count that too. Their floor is of training images, with the shares "
            "of the training split, so even a perfect model need not come down to it. To draw by "
            "the data's shares, name a class in sampling.classes as often as its share asks: "
            "[0, 0, 1] for two to one."
        )


def class_shares(samples: ImageSet, test: ImageSet, names: list[str] | None) -> ClassShares | None:
    """The classes of both sets; None where one of them has no classes.

    Args:
        samples: Labels are the classes asked for.
        test: What they are held against.
        names: Of the classes, indexed by label; None: the numbers.
    """
    if samples.labels is None or test.labels is None:
        return None
    count = max(len(names or []), 1 + int(max(samples.labels.max(), test.labels.max())))
    named = tuple(names or [f"class {label}" for label in range(count)])
    counts = (np.bincount(labels, minlength=count) for labels in (samples.labels, test.labels))
    return ClassShares(*counts, named)


def _shares(counts: Counts) -> Float[np.ndarray, " classes"]:
    return counts / counts.sum()
