"""What is timed: matrix roots, Frechet distances and kernel distances, ours and others'."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from benchmarks.distances.measure import Task
from benchmarks.distances.peers import (
    general_root_trace,
    product_root_trace,
    torchmetrics_frechet,
    torchmetrics_kernel,
)
from benchmarks.distances.problem import make_features, make_roots
from stages.metrics.feature_set import FeatureSet
from stages.metrics.frechet import gaussian_distance
from stages.metrics.gaussian import covariance_factor
from stages.metrics.kernel import kernel_distance
from stages.metrics.matrix_root import root_trace

__all__ = ["OURS", "frechet_task", "kernel_task", "root_task"]

OURS = "ours"
_BATCH = 500
_SLOW_UP_TO = 1024
"""Dimensions above which the slowest ways to a root, which nobody would take, are left out."""


def root_task(dim: int, seed: int) -> Task:
    """The trace of the root for given covariances, whose exact value is known."""
    given = make_roots(dim, seed)

    def ours() -> float:
        return root_trace(covariance_factor(given.first), covariance_factor(given.second))

    ways: dict[str, Callable[[], float]] = {
        OURS: ours,
        "torchmetrics: eigenvalues of the product": lambda: product_root_trace(
            given.first, given.second
        ),
    }
    if dim <= _SLOW_UP_TO:
        ways["ours by singular values"] = lambda: _by_singular_values(given.first, given.second)
        ways["scipy: sqrtm of the product"] = lambda: general_root_trace(given.first, given.second)
    return Task("trace of the root", dim, None, ways, given.trace)


def frechet_task(dim: int, images: int, seed: int) -> Task:
    """From features to the distance, float64 sums everywhere."""
    given = make_features(dim, images, seed)

    def ours() -> float:
        first, second = (_set(features) for features in (given.samples, given.reference))
        return gaussian_distance(first.gaussian, second.gaussian)

    def theirs() -> float:
        # Given float32 they would round the result to it.
        return torchmetrics_frechet(given.samples.double(), given.reference.double(), _BATCH)

    return Task("Frechet distance", dim, images, {OURS: ours, "torchmetrics": theirs}, None)


def kernel_task(dim: int, images: int, seed: int) -> Task:
    """From features to the kernel distance over all pairs; ours with its variance."""
    given = make_features(dim, images, seed)

    def ours() -> float:
        return kernel_distance(_set(given.samples), _set(given.reference)).value

    def theirs(kind: torch.dtype) -> float:
        first, second = given.samples.to(kind), given.reference.to(kind)
        return torchmetrics_kernel(first, second, subsets=1, size=images)

    ways: dict[str, Callable[[], float]] = {
        OURS: ours,
        "torchmetrics, float64": lambda: theirs(torch.float64),
        "torchmetrics, float32": lambda: theirs(torch.float32),
    }
    return Task("kernel distance", dim, images, ways, None)


def _by_singular_values(first: Tensor, second: Tensor) -> float:
    across = covariance_factor(first).T @ covariance_factor(second)
    return torch.linalg.svdvals(across).sum().item()


def _set(features: Tensor) -> FeatureSet:
    return FeatureSet(np.asarray(features), None, None)
