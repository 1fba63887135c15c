"""Every network looks at every set of images, before anything is compared.

Features of the reference splits are kept in `.work/features` for other runs and lines; those of
what the line made, in the work folder of the stage, which goes when the stage is done.
"""

import torch

from stages.core.stage import Run, work_root
from stages.evaluation.feature_store import FeatureStore
from stages.evaluation.image_sets import ImageSet
from stages.extractors.base import Extractor
from stages.metrics.feature_set import FeatureSet

__all__ = ["look_at"]

KEPT_BYTES = 2**33
"""Features of reference splits of earlier runs that stay on the disk."""
REFERENCES = ("test", "train")


def look_at(
    sets: dict[str, ImageSet], networks: list[Extractor], run: Run, device: torch.device
) -> list[dict[str, FeatureSet]]:
    """Features of all sets in each network.

    Args:
        sets: By name.
        networks: Each by itself.
        run: Its stop event is obeyed between pieces, its work folder used.
        device: Where the networks compute.

    Raises:
        Interrupted: If the stage was asked to stop; what was finished is kept.
    """
    kept = FeatureStore(work_root() / "features", device, run.raise_if_stopped)
    passing = FeatureStore(run.work / "features", device, run.raise_if_stopped)
    seen = [
        {
            name: (kept if name in REFERENCES else passing).features(network, images)
            for name, images in sets.items()
        }
        for network in networks
    ]
    kept.prune(KEPT_BYTES)
    return seen
