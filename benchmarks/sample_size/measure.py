"""Distances of the first n of many images from a fixed reference, for several orders."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

from stages.core.randomness import permutation
from stages.metrics.feature_set import FeatureSet
from stages.metrics.frechet_infinity import distances_over_n
from stages.metrics.kernel import kernel_distance

__all__ = ["Curve", "frechet_curve", "kernel_curve"]


@dataclass(frozen=True)
class Curve:
    """One kind of images."""

    sizes: list[int]
    values: Float64[np.ndarray, "orders sizes"]
    carried: Float64[np.ndarray, " orders"] | None
    """To infinitely many images, by a line in 1/n through the upper half of the sizes."""
    errors: Float64[np.ndarray, "orders sizes"] | None
    """Standard errors the distance states itself."""


def frechet_curve(
    images: FeatureSet, reference: FeatureSet, sizes: list[int], orders: int, seed: int
) -> Curve:
    """Frechet distances."""
    values = np.array(
        [
            distances_over_n(images, reference.gaussian, order, sizes)
            for order in _orders(images, orders, seed)
        ]
    )
    upper = np.array(sizes) >= max(sizes) / 10
    inverse = 1 / np.array(sizes)[upper]
    carried = [np.polyfit(inverse, row[upper], deg=1)[1] for row in values]
    return Curve(sizes, values, np.array(carried), None)


def kernel_curve(
    images: FeatureSet, reference: FeatureSet, sizes: list[int], orders: int, seed: int
) -> Curve:
    """Kernel distances over all pairs."""
    found = [
        [kernel_distance(images.rows(order[:size]), reference) for size in sizes]
        for order in _orders(images, orders, seed)
    ]
    values = np.array([[one.value for one in row] for row in found])
    errors = np.array([[one.variance**0.5 for one in row] for row in found])
    return Curve(sizes, values, None, errors)


def _orders(images: FeatureSet, orders: int, seed: int) -> list[np.ndarray]:
    return [permutation(len(images), seed, "order", number) for number in range(orders)]
