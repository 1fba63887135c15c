"""The Frechet distance of infinitely many samples, carried on from fewer.

    d^2(n) = d^2(infinity) + slope / n

Chong & Forsyth 2020 (arXiv:1911.07023), Sec. 3: the bias of the estimate is linear in 1/n, so a
line through distances at several n meets 1/n = 0 without the samples' part of it. Sizes run evenly
from a tenth of the samples to all of them, as published (15 from 5,000 to 50,000).

The line holds where n is well above the number of dimensions; `residual` (root mean square of what
the line misses) says how well it does, and is no confidence interval, as the points share images.
The reference's own part stays: it is the same for all that is compared with it.

Differs: each size adds images to those of the last (one random order) where the paper draws every
size anew; so moments are added up once, and N images are read once instead of N/2 per point.

Memory: as the Frechet distance. Time: one matrix root per point.
"""

import numpy as np
import torch

from stages.core.errors import DataError
from stages.core.randomness import permutation
from stages.metrics.base import Figure
from stages.metrics.feature_set import FeatureSet
from stages.metrics.frechet import gaussian_distance
from stages.metrics.gaussian import FeatureMoments, Gaussian, gaussian_of_rows
from stages.metrics.pair import Pair

__all__ = ["distances_over_n", "frechet_infinity_figures"]

_SMALLEST_SHARE = 0.1


def frechet_infinity_figures(pair: Pair) -> list[Figure]:
    """The distance carried on to infinitely many samples; none for 0 points.

    Raises:
        DataError: If there are too few samples to draw a line through.
    """
    points, count = pair.options.infinity_points, len(pair.samples)
    if not points:
        return []
    sizes = np.unique(np.linspace(max(_SMALLEST_SHARE * count, 2), count, points).astype(int))
    if len(sizes) < 3:
        raise DataError(
            "A distance is carried on from at least three sizes of the set of samples; "
            f"{count} samples at {points} points give {len(sizes)}. Draw more samples, raise "
            "`infinity_points`, or set it to 0."
        )
    order = permutation(count, pair.seed, "frechet infinity")
    values = distances_over_n(pair.samples, pair.reference.gaussian, order, sizes.tolist())
    slope, value = np.polyfit(1 / sizes, values, deg=1)
    missed = float(np.sqrt(np.mean((values - (value + slope / sizes)) ** 2)))
    how = pair.protocol.also(
        covariance="unbiased, float64",
        sizes=f"{len(sizes)} evenly from {sizes[0]} to {sizes[-1]}, nested in random order",
        found={**pair.protocol.found, "slope": float(slope), "residual": missed},
    )
    name = pair.name("frechet_infinity")
    return [Figure(name, float(value), "squared feature distance", "lower", count, how)]


def distances_over_n(
    samples: FeatureSet, reference: Gaussian, order: np.ndarray, sizes: list[int]
) -> np.ndarray:
    """Distance of the first n samples in this order, for ascending n; float64 (sizes,)."""
    moments, values = FeatureMoments(samples.dim), []
    for start, stop in zip([0, *sizes], sizes, strict=False):
        for begin in range(start, stop, samples.chunk):
            # Sorted within a chunk, so that a mapped file is read forwards.
            rows = np.sort(order[begin : min(begin + samples.chunk, stop)])
            moments.update(torch.from_numpy(np.asarray(samples.features[rows])))
        values.append(gaussian_distance(_fitted(samples, moments, order[:stop]), reference))
    return np.array(values)


def _fitted(samples: FeatureSet, moments: FeatureMoments, rows: np.ndarray) -> Gaussian:
    """A singular covariance is better taken from its few vectors."""
    if len(rows) > samples.dim:
        return moments.gaussian()
    return gaussian_of_rows(torch.from_numpy(np.asarray(samples.features[np.sort(rows)])))
