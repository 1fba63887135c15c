"""Two sets of images in the features of one network, and how they are to be compared.

Every distance takes a pair and gives figures, named by what they are and by the network: `frechet`
in the features of `rotation` is `frechet_rotation`. Only Inception's have names of their own (FID,
KID, Inception score), as only its figures may be held against published ones.

Each figure is, exactly or to first order, a mean of one contribution per image, and intervals are
of two kinds. A share of images has the exact one (`intervals.py`): images drawn again would give no
width where all of them are hits, however few they are, and too little near there. For other means
they are drawn again with replacement (Efron 1979), and the interval holds the middle `level` of the
means. Contributions are sorted before, so their order does not matter.
"""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float64
from pydantic import Field, model_validator

from stages.core.errors import DataError
from stages.core.randomness import numpy_stream
from stages.core.sections import Section
from stages.metrics.base import Figure, Protocol
from stages.metrics.feature_set import FeatureSet
from stages.metrics.intervals import exact_interval
from stages.metrics.neighbourhoods import Neighbourhoods

__all__ = ["LEAST_IMAGES", "DistanceOptions", "Pair", "interval_of_mean"]

LEAST_IMAGES = 4
"""Of a set; with fewer a variance over pairs has no meaning."""

_INCEPTION = {
    "frechet": "fid",
    "frechet_infinity": "fid_infinity",
    "kernel": "kid",
    "score": "inception_score",
}


class DistanceOptions(Section):
    """How sets of features are compared."""

    resamples: int = Field(ge=0, le=1_000_000)
    """Bootstrap draws behind intervals of means; 0: no intervals, of shares neither. Kernel
    distances need no draws for theirs and always have them."""
    level: float = Field(gt=0, lt=1)
    """Of all intervals: share of the draws that one holds, or confidence."""
    infinity_points: int = Field(ge=0, le=1000)
    """Sizes at which the Frechet distance is taken to be carried on to infinitely many samples, as
    many matrix roots; 0: not at all. Published: 15."""
    kernel_block: int = Field(ge=0)
    """Images of a set per block of the kernel distance, which then is a mean over blocks; 0: all
    pairs at once, for which time grows with the square of the images."""
    precision_neighbours: int = Field(gt=0)
    """Neighbours that make the radius of precision and recall. Published: 3."""
    density_neighbours: int = Field(gt=0)
    """The same of density and coverage. Published: 5."""
    score_splits: int = Field(gt=0)
    """Parts of the samples over which the score's standard deviation is taken. Published: 10."""

    @model_validator(mode="after")
    def _blocks_are_sets(self) -> "DistanceOptions":
        if 0 < self.kernel_block < LEAST_IMAGES:
            raise ValueError(
                f"kernel_block must be 0 (all pairs) or at least {LEAST_IMAGES}, for a variance "
                f"over the pairs of a block; got {self.kernel_block}"
            )
        return self


@dataclass(frozen=True)
class Pair:
    """Samples, the reference they are held against, and the settings.

    Raises:
        DataError: If the two sets are not features of the same network.
    """

    samples: FeatureSet
    reference: FeatureSet
    network: str
    """Short name of what made the features: `inception`, `classifier`, ..."""
    options: DistanceOptions
    seed: int
    """Of bootstrap draws and of the order in which samples are added."""
    common: Protocol
    """What all figures of this pair share."""
    paired: bool = False
    """Whether image i of the samples was made of image i of the reference: they are no independent
    draws, and only distances that count with that may be taken."""

    def __post_init__(self) -> None:
        if self.paired:
            assert len(self.samples) == len(self.reference), "paired sets have as many images"
        if self.samples.dim != self.reference.dim:
            raise DataError(
                f"Both sets must be features of the same network; samples have {self.samples.dim} "
                f"dimensions, the reference {self.reference.dim}. Extract both with {self.network}."
            )

    @property
    def protocol(self) -> Protocol:
        """What the figures share, and the size of what is compared."""
        told = {"sets": "paired: images, and what was made of each"} if self.paired else {}
        return self.common.also(
            feature_dim=self.reference.dim,
            reference_n=len(self.reference),
            seed=self.seed,
            **told,
        )

    def name(self, what: str) -> str:
        """`what` in the features of this network."""
        if self.network == "inception" and what in _INCEPTION:
            return _INCEPTION[what]
        return f"{what}_{self.network}"

    @cached_property
    def neighbourhoods(self) -> Neighbourhoods:
        """Who is near whom; precision and recall read it, density and coverage too."""
        return Neighbourhoods.of(
            self.samples,
            self.reference,
            self.options.precision_neighbours,
            self.options.density_neighbours,
        )

    def interval_of_mean(
        self, contributions: Float64[np.ndarray, " images"], name: str
    ) -> tuple[float, float]:
        """Interval of the mean of contributions, from the stream of the figure `name`."""
        generator = numpy_stream(self.seed, "interval", name)
        return interval_of_mean(
            contributions, self.options.resamples, self.options.level, generator
        )

    def with_interval(self, protocol: Protocol, method: str) -> Protocol:
        """The protocol, and how the interval was made."""
        return protocol.also(
            interval=method, interval_level=self.options.level, resamples=self.options.resamples
        )

    def mean_figure(
        self, what: str, contributions: np.ndarray, unit: str, protocol: Protocol, over: str
    ) -> Figure:
        """A figure that is a mean over images, larger being better, with its interval.

        Args:
            what: Its name, before that of the network.
            contributions: Of each image, (images,): bool, and the mean is a share, or numbers.
            unit: Of the mean.
            protocol: How the contributions were made.
            over: Whose images these are, `samples` or `reference`; the other set is fixed.
        """
        assert not self.paired, "a share of paired sets has another interval"
        name, interval = self.name(what), None
        fixed = {"samples": "reference", "reference": "samples"}[over]
        count, value = len(contributions), float(contributions.astype(np.float64).mean())
        if over == "reference":
            # N is then the reference's, and the samples count all the same.
            protocol = protocol.also(samples_n=len(self.samples))
        if self.options.resamples and contributions.dtype == np.bool_:
            level = self.options.level
            interval = exact_interval(int(contributions.sum()), count, level)
            method = f"exact binomial (Clopper-Pearson) over {over}, {fixed} fixed"
            protocol = protocol.also(interval=method, interval_level=level)
        elif self.options.resamples:
            interval = self.interval_of_mean(contributions.astype(np.float64), name)
            protocol = self.with_interval(
                protocol, f"percentile bootstrap over {over}, {fixed} fixed"
            )
        return Figure(name, value, unit, "higher", count, protocol, interval)


def interval_of_mean(
    contributions: Float64[np.ndarray, " images"],
    resamples: int,
    level: float,
    generator: np.random.Generator,
) -> tuple[float, float]:
    """Percentile bootstrap of a mean."""
    ordered = np.sort(contributions)
    count = len(ordered)
    means = [ordered[generator.integers(count, size=count)].mean() for _ in range(resamples)]
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
