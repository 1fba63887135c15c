"""Sets of images compared in the features of one network.

    NAME                    samples against test
    reconstruction_NAME     reconstructions against test: what the first stage costs alone
    NAME_floor              train against test: what is left for real images

NAME is `fid` in Inception and `frechet_NETWORK` in any other. Reconstructions are of the very
images they are compared with, so theirs can lie below the floor.
"""

from dataclasses import dataclass

import pandas as pd
import torch

from stages.core.stage import Run, work_root
from stages.evaluation.asked_classes import AskedClasses
from stages.evaluation.feature_store import FeatureStore
from stages.evaluation.image_sets import ImageSet
from stages.evaluation.protocols import in_features
from stages.extractors.base import Extractor
from stages.metrics.base import Figure, Protocol
from stages.metrics.feature_set import FeatureSet
from stages.metrics.frechet import FeatureMoments, frechet_figure

__all__ = ["Comparison", "compare"]

KEPT_BYTES = 2**33
"""Features of reference splits of earlier runs that stay on the disk."""
REFERENCES = ("test", "train")


@dataclass(frozen=True)
class Comparison:
    """What one network saw."""

    network: Extractor
    sets: dict[str, FeatureSet]
    """`test`, `train`, `reconstructions`, `samples`; memory-mapped."""
    protocols: dict[str, Protocol]
    """Of figures about each set in these features."""
    class_names: list[str]
    """Of the data; empty without classes."""
    suffix: str = ""
    """Behind the names of its class accuracies."""

    @property
    def title(self) -> str:
        """Heading of its figures in the report."""
        return f"Samples, seen by {self.network.name}"

    def figures(self) -> list[Figure]:
        """All distances from the test images, and whether images show what was asked for."""
        name = self.network.distance_name
        wanted = {
            name: "samples",
            f"reconstruction_{name}": "reconstructions",
            f"{name}_floor": "train",
        }
        test = _moments(self.sets["test"])
        distances = [
            frechet_figure(figure, _moments(self.sets[of]), test, self.protocols[of])
            for figure, of in wanted.items()
        ]
        return [*distances, *self._asked.figures(self.protocols)]

    def per_class(self) -> pd.DataFrame:
        """One row per class of the data."""
        return self._asked.table(self.class_names)

    @property
    def _asked(self) -> AskedClasses:
        known = self.network.tells_apart(self.class_names)
        return AskedClasses(self.sets, len(self.class_names) if known else 0, self.suffix)


def _moments(features: FeatureSet) -> FeatureMoments:
    moments = FeatureMoments(features.dim)
    for chunk in features.chunks():
        moments.update(torch.from_numpy(chunk))
    return moments


def compare(
    networks: list[Extractor],
    sets: dict[str, ImageSet],
    protocols: dict[str, Protocol],
    class_names: list[str],
    run: Run,
    device: torch.device,
) -> list[Comparison]:
    """Have every network look at every set.

    Features of the reference splits are kept in `.work/features` for other runs and lines; those
    of what the line made, in the work folder of the stage, which goes when it is done.

    Args:
        networks: Each by itself, the line's own judge first.
        sets: By name.
        protocols: Of figures about each set in no features yet.
        class_names: Of the data.
        run: Its stop event is obeyed between pieces, its work folder used.
        device: Where the networks compute.

    Raises:
        Interrupted: If the stage was asked to stop; what was finished is kept.
    """
    kept = FeatureStore(work_root() / "features", device, run.raise_if_stopped)
    passing = FeatureStore(run.work / "features", device, run.raise_if_stopped)
    seen = []
    for network in networks:
        features = {
            name: (kept if name in REFERENCES else passing).features(network, images)
            for name, images in sets.items()
        }
        here = {
            name: in_features(network, sets[name].shape, protocol)
            for name, protocol in protocols.items()
        }
        suffix = f"_{network.name}" if seen else ""
        seen.append(Comparison(network, features, here, class_names, suffix))
    kept.prune(KEPT_BYTES)
    return seen
