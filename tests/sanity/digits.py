"""Real images spoilt in known ways, in the features of a fixed network.

Handwritten digits (8x8, 1797 images; scikit-learn): even rows are the reference, odd rows the
samples, so unspoilt samples are other real images. The classes are those of a linear discriminant
between the features of the reference.
"""

from functools import cache

import numpy as np
from scipy.ndimage import gaussian_filter
from sklearn.datasets import load_digits
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from benchmarks.sample_size.features import random_features
from stages.metrics.distances import all_distances
from stages.metrics.feature_set import FeatureSet
from tests.metrics.feature_sets import pair

DIM = 24


@cache
def digits() -> tuple[np.ndarray, np.ndarray]:
    found = load_digits()
    images = np.rint(found.images * (255 / 16)).astype(np.uint8)[:, None]
    return images, found.target


@cache
def _classifier() -> LinearDiscriminantAnalysis:
    images, labels = digits()
    return LinearDiscriminantAnalysis().fit(_features(images[::2]), labels[::2])


def _features(images: np.ndarray) -> np.ndarray:
    # Unit scale, so that the score's logits and the kernel have something to say.
    return random_features(images, DIM, seed=3) * 4


def seen(images: np.ndarray) -> FeatureSet:
    features = _features(images)
    logits = _classifier().predict_log_proba(features).astype(np.float32)
    return FeatureSet(features, logits, None)


@cache
def reference() -> FeatureSet:
    return seen(digits()[0][::2])


def samples() -> tuple[np.ndarray, np.ndarray]:
    images, labels = digits()
    return images[1::2], labels[1::2]


def figures(images: np.ndarray, of: FeatureSet | None = None) -> dict[str, float]:
    """Every distance of these images from the reference, by its name without the network."""
    both = pair(seen(images), reference() if of is None else of, resamples=0, infinity_points=0)
    return {f.name.removesuffix("_classifier"): f.value for f in all_distances(both)}


def blurred(images: np.ndarray, sigma: float) -> np.ndarray:
    return np.rint(gaussian_filter(images.astype(float), (0, 0, sigma, sigma))).astype(np.uint8)


def noisy(images: np.ndarray, level: float) -> np.ndarray:
    noise = np.random.default_rng(0).normal(size=images.shape)
    return np.clip(np.rint(images + level * noise), 0, 255).astype(np.uint8)


def without(images: np.ndarray, labels: np.ndarray, dropped: int) -> np.ndarray:
    """As many images, of fewer classes: those left are shown again."""
    left = images[labels >= dropped]
    return left[np.random.default_rng(1).integers(len(left), size=len(images))]


def unbalanced(images: np.ndarray, labels: np.ndarray, times: int) -> np.ndarray:
    """Half of the classes are `times` as frequent as the others, of as many images."""
    weights = np.where(labels < 5, times, 1.0)
    chosen = np.random.default_rng(2).choice(len(images), len(images), p=weights / weights.sum())
    return images[chosen]


def repeated(images: np.ndarray, times: int) -> np.ndarray:
    """As many images, of which only one in `times` is another one."""
    few = images[: len(images) // times]
    return np.concatenate([few] * times)
