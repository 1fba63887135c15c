"""Sets of features and pairs of them to begin with."""

import numpy as np

from stages.metrics.feature_set import FeatureSet
from stages.metrics.pair import DistanceOptions, Pair
from tests.metrics.examples import PROTOCOL

OPTIONS = DistanceOptions(
    resamples=200,
    level=0.95,
    infinity_points=6,
    kernel_block=0,
    precision_neighbours=3,
    density_neighbours=5,
    score_splits=4,
)


def feature_set(features, logits=None, labels=None) -> FeatureSet:
    return FeatureSet(
        np.asarray(features, dtype=np.float32),
        None if logits is None else np.asarray(logits, dtype=np.float32),
        None if labels is None else np.asarray(labels, dtype=np.int64),
    )


def normal(images: int, dim: int, seed: int, shift: float = 0, scale: float = 1) -> FeatureSet:
    random = np.random.default_rng(seed)
    return feature_set(shift + scale * random.normal(size=(images, dim)))


def made_of(
    reference: FeatureSet, seed: int, shift: float, kept: float, noise: float
) -> FeatureSet:
    """Of every image y one x = shift + kept y + noise."""
    random = np.random.default_rng(seed)
    added = noise * random.normal(size=reference.features.shape)
    return feature_set(shift + kept * reference.features + added)


def pair(
    samples: FeatureSet, reference: FeatureSet, network="classifier", paired=False, **options
) -> Pair:
    changed = OPTIONS.model_copy(update=options)
    return Pair(samples, reference, network, changed, seed=5, common=PROTOCOL, paired=paired)
