"""Sets of images compared with the test images in the features of one network.

    NAME                    samples
    reconstruction_NAME     reconstructions: what the first stage costs alone
    NAME_floor              training images, as many as there are samples where there are so many

NAME is that of a distance (stages/metrics/distances.py). Reconstructions are of the very images
they are compared with, so theirs can lie below the floor; only the Frechet and the kernel distance
are taken of them, each image paired with its own reconstruction. The floor is what real images get,
and no model can be expected to beat it. It is taken at the number of samples, as most distances
depend on that.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import pandas as pd

from stages.evaluation.asked_classes import AskedClasses
from stages.evaluation.observe import evenly_spaced
from stages.extractors.base import Extractor
from stages.metrics.base import Figure, Protocol
from stages.metrics.distances import DISTANCES
from stages.metrics.feature_set import FeatureSet
from stages.metrics.frechet import frechet_figures
from stages.metrics.kernel import kernel_figures
from stages.metrics.pair import DistanceOptions, Pair
from stages.metrics.per_class import class_distances

__all__ = ["Comparison"]

OF_RECONSTRUCTIONS = (frechet_figures, kernel_figures)


@dataclass(frozen=True)
class Comparison:
    """What one network saw, and how to compare it."""

    network: Extractor
    sets: dict[str, FeatureSet]
    """`test`, `train`, `reconstructions` (image i of test image i), `samples`; memory-mapped."""
    protocols: dict[str, Protocol]
    """Of figures about each set, and about the floor, in these features."""
    class_names: list[str]
    """Of the data; empty without classes."""
    options: DistanceOptions
    seed: int
    """Of bootstrap draws and orders."""
    suffix: str
    """Behind the names of its class accuracies."""

    @property
    def title(self) -> str:
        """Heading of its figures in the report."""
        return f"Samples, seen by {self.network.name}"

    def figures(self, between: Callable[[], None]) -> list[Figure]:
        """All distances from the test images, and whether images show what was asked for.

        Args:
            between: Called between distances; may raise.

        Raises:
            DataError: If a set is too small for what is asked of it.
        """
        floor = self.sets["train"].rows(
            evenly_spaced(len(self.sets["train"]), len(self.sets["samples"]))
        )
        wanted = [
            ("{}", self.sets["samples"], "samples", DISTANCES),
            (
                "reconstruction_{}",
                self.sets["reconstructions"],
                "reconstructions",
                OF_RECONSTRUCTIONS,
            ),
            ("{}_floor", floor, "floor", DISTANCES),
        ]
        found = []
        for name, images, of, distances in wanted:
            pair = self._pair(images, self.protocols[of], paired=of == "reconstructions")
            for figures in distances:
                found += [replace(one, name=name.format(one.name)) for one in figures(pair)]
                between()
        return [*found, *self._asked.figures(self.protocols)]

    def per_class(self) -> pd.DataFrame | None:
        """One row per class: accuracies where the network tells classes apart, and distances.

        Returns:
            None without classes; columns end in `suffix`, but for label and name.
        """
        if not self.class_names:
            return None
        known = self.network.tells_apart(self.class_names)
        table = pd.DataFrame({"label": range(len(self.class_names)), "name": self.class_names})
        if known:
            table = table.join(self._asked.table())
        samples, test, train = (self.sets[name] for name in ("samples", "test", "train"))
        if samples.labels is not None and test.labels is not None:
            count = len(self.class_names)
            distances = class_distances(samples, test, train, count, self.seed)
            table = table.join(distances.drop(columns=["label", "samples_n", "reference_n"]))
        return table.set_index(["label", "name"]).add_suffix(self.suffix).reset_index()

    def _pair(self, images: FeatureSet, protocol: Protocol, paired: bool) -> Pair:
        network, test = self.network.name, self.sets["test"]
        return Pair(images, test, network, self.options, self.seed, protocol, paired)

    @property
    def _asked(self) -> AskedClasses:
        known = self.network.tells_apart(self.class_names)
        return AskedClasses(self.sets, len(self.class_names) if known else 0, self.suffix)
