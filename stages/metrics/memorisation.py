"""Is it memorising? Whether samples come nearer to training images than fresh images do.

Each sample has a distance to the nearest training image, and so has each test image, which no
model has seen. For a model that generalises the two kinds of distances are alike. Two figures:

    neighbour_distance_ratio = median of the samples' distances / median of the test images'

about 1 for a model that generalises, towards 0 for one that copies, above 1 for samples off the
data (the comparison of Meehan et al. 2020, arXiv:2004.05675, reduced to its medians). A model
that copies one time in twenty does not move a median; so

    near_copy_share = share of samples nearer than the k-th nearest of m test images,
                      k = floor(q (m + 1)), at least 1; q = 1 %

Were n samples and m test images alike, any order of their distances would be as likely as any
other, and the number of samples before the k-th test image would be beta-binomial,

    X ~ BetaBinomial(n, k, m + 1 - k),    E X = n k / (m + 1)

exactly and whatever the features, where both are drawn at random from what they stand for. The
verdict is that of this test: copies are suspected where so many samples have less than 1 chance in
100.

What the test can not tell: samples drawn colder than the data (temperature below 1, guidance)
crowd where training images crowd and come nearer without being copies; the sheet of neighbours
shows which it is. And where the nearest test images are themselves copies of training images, at
distance 0, nothing can be nearer.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.stats import betabinom
from torch import Tensor, finfo, float32

from stages.metrics.base import Figure, Protocol
from stages.metrics.intervals import EXACT, exact_interval

__all__ = ["CLOSEST", "RARE", "Memorisation", "judge_distances", "usual_distance"]

CLOSEST = 0.01
"""q: the share of test images that says what counts as near."""
RARE = 0.01
"""Copies are suspected where chance would bring so many near samples less often than this."""


@dataclass(frozen=True)
class Memorisation:
    """What the distances say."""

    ratio: float
    """Of the medians."""
    threshold: float
    """Distance of the k-th nearest test image."""
    nearer: int
    """Samples below it."""
    samples: int
    test: int
    chance: float
    """Of so many or more, for a model whose samples are like fresh images."""

    @property
    def flagged(self) -> bool:
        """Whether copies are suspected."""
        return self.chance < RARE

    @property
    def share(self) -> float:
        """Of the samples that are nearer than the closest test images."""
        return self.nearer / self.samples

    @property
    def verdict(self) -> str:
        """One sentence for people."""
        found = (
            f"{self.nearer} of {self.samples} samples are nearer to a training image than the "
            f"closest {CLOSEST:.0%} of {self.test} test images"
        )
        if self.flagged:
            rare = f"{self.chance:.1%}" if self.chance >= 0.001 else "less than 0.1%"
            return (
                f"Copies suspected: {found}; of fresh images as many or more would be in {rare} of "
                "cases. Look at the nearest neighbours."
            )
        if self.nearer == 0:
            return f"No sign of copying: {found}."
        often = f"{self.chance:.0%} of cases"
        return f"No sign of copying: {found}; of fresh images as many or more would be in {often}."

    def figures(self, protocol: Protocol) -> list[Figure]:
        """The ratio of medians and the share of near samples."""
        how = protocol.also(
            distance="Euclidean, in features, to the nearest training image",
            against="the same distance of test images",
            test_n=self.test,
        )
        near = how.also(
            closest_test_share=CLOSEST,
            interval=f"{EXACT}, the threshold taken as it is",
            found={
                **protocol.found,
                "nearer": self.nearer,
                "threshold": self.threshold,
                "chance_if_like_fresh_images": self.chance,
                "flagged": self.flagged,
            },
        )
        interval = exact_interval(self.nearer, self.samples)
        n = self.samples
        return [
            Figure("neighbour_distance_ratio", self.ratio, "1", "none", n, how),
            Figure("near_copy_share", self.share, "share", "none", n, near, interval),
        ]


def judge_distances(
    samples: Float[Tensor, " samples"], test: Float[Tensor, " test"]
) -> Memorisation:
    """Hold the distances of samples to their nearest training images against those of test images.

    Args:
        samples: Of each sample, in any unit.
        test: Of each test image, in the same unit and to the same training images.
    """
    m, n = len(test), len(samples)
    rank = max(1, int(CLOSEST * (m + 1)))
    threshold = test.double().sort().values[rank - 1]
    nearer = int((samples.double() < threshold).sum())
    return Memorisation(
        ratio=_median(samples) / usual_distance(test),
        threshold=threshold.item(),
        nearer=nearer,
        samples=n,
        test=m,
        chance=float(betabinom.sf(nearer - 1, n, rank, m + 1 - rank)),
    )


def usual_distance(test: Float[Tensor, " test"]) -> float:
    """Median distance of test images to their nearest training image: the unit for people."""
    # Test images that all recur in training would have distance 0.
    return max(_median(test), finfo(float32).eps)


def _median(distances: Float[Tensor, " images"]) -> float:
    # That of torch is the lower of the two in the middle.
    return float(np.median(distances.double().numpy()))
