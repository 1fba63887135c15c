"""Distance between two sets of images: the Frechet distance of Gaussians fitted to features.

    d^2 = |m1 - m2|^2 + tr(C1 + C2 - 2 (C1^(1/2) C2 C1^(1/2))^(1/2))

Heusel et al. 2017 (arXiv:1706.08500), Eq. 6, after Dowson & Landau 1982; how the trace of the root
is taken stands in `matrix_root.py`.

The interval says what another draw of as many samples would give, against the same reference: the
reference is the same for all models that are compared, so its error is common to them. A bootstrap
of d^2 itself costs a root per resample, and is off to one side, as a resample repeats images and so
looks like a smaller set, which is further away. So what is resampled is d^2 to first order in the
weights of the images, the mean of

    h(x) = 2 (m1 - m2)'(x - m1) + (x - m1)'(I - T)(x - m1),      T C1 T = C2

where T is the map that carries the first Gaussian to the second, T = F2 (F2' C1 F2)^(-1/2) F2':
I - T is the slope of d^2 in C1. One decomposition, whatever the number of resamples. To first
order means: not where the two sets are alike up to their number, since the slope vanishes there.

Where the sets are paired, an image of the one being made of an image of the other, another draw
brings other pairs: what is resampled is h of both images of a pair, each against the other set.

Differs: FID is this distance in the features of one Inception network. In any other features the
numbers are on another scale, so figures here are named by their features and never FID. All sums
are float64. The estimate is biased upwards by about 1/N: compare only equal N, and beside every
distance stands its floor, train against test images, which no model can be expected to beat.

Memory: at most four matrices of dim x dim in float64 per set, and one chunk.
"""

import numpy as np
import torch
from jaxtyping import Float64

from stages.metrics.base import Figure
from stages.metrics.feature_set import FeatureSet
from stages.metrics.gaussian import FeatureMoments, Gaussian
from stages.metrics.matrix_root import root_trace
from stages.metrics.pair import Pair

__all__ = [
    "FeatureMoments",
    "frechet_distance",
    "frechet_figures",
    "frechet_slopes",
    "gaussian_distance",
]

_UNIT = "squared feature distance"
_OVER_SAMPLES = "samples, reference fixed"


def gaussian_distance(first: Gaussian, second: Gaussian) -> float:
    """Squared Frechet distance of two Gaussians; 0 if and only if they are equal."""
    between = (first.mean - second.mean).square().sum().item()
    overlap = root_trace(first.factor, second.factor)
    # Rounding can leave equal sets a hair below 0.
    return max(between + first.spread + second.spread - 2 * overlap, 0.0)


def frechet_distance(first: FeatureMoments, second: FeatureMoments) -> float:
    """The same from moments."""
    return gaussian_distance(first.gaussian(), second.gaussian())


def frechet_figures(pair: Pair) -> list[Figure]:
    """The distance of the samples from the reference, with its interval."""
    value = gaussian_distance(pair.samples.gaussian, pair.reference.gaussian)
    how = pair.protocol.also(covariance="unbiased, float64")
    name, interval = pair.name("frechet"), None
    if pair.options.resamples:
        slopes, over = frechet_slopes(pair.samples, pair.reference.gaussian), _OVER_SAMPLES
        if pair.paired:
            slopes = slopes + frechet_slopes(pair.reference, pair.samples.gaussian)
            over = "pairs"
        low, high = pair.interval_of_mean(slopes, name)
        interval = (max(value + low, 0.0), max(value + high, 0.0))
        how = pair.with_interval(
            how, f"percentile bootstrap over {over}; to first order in weights"
        )
    return [Figure(name, value, _UNIT, "lower", len(pair.samples), how, interval)]


def frechet_slopes(samples: FeatureSet, reference: Gaussian) -> Float64[np.ndarray, " images"]:
    """h(x) of every sample, centred: how the distance moves with the weight of that image."""
    own = samples.gaussian
    across = own.factor.T @ reference.factor
    squares, vectors = torch.linalg.eigh(across.T @ across)
    # Directions that only one of the two sets has; their slope is that of the identity alone. The
    # largest is a slice: a reference that does not vary has none, and no direction is shared.
    shared = squares > len(squares) * torch.finfo(squares.dtype).eps * squares[-1:]
    scale = squares[shared] ** -0.25
    carried = reference.factor @ (vectors[:, shared] * scale)
    shift = 2 * (own.mean - reference.mean)
    # A weight moves the unbiased covariance by N/(N - 1) of what it moves the plain one.
    unbiased = own.count / max(own.count - 1, 1)
    slopes = []
    for _, chunk in samples.blocks():
        centred = chunk - own.mean
        curved = centred.square().sum(dim=1) - (centred @ carried).square().sum(dim=1)
        slopes.append(centred @ shift + curved * unbiased)
    found = torch.cat(slopes)
    return (found - found.mean()).numpy()
