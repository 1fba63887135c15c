"""The beta-VAE score: can a linear classifier tell which factor two images share?

A point is the mean over 64 pairs, the two images of a pair sharing a value of factor k, of how far
apart their latents are:

    x_d = mean over pairs of |z_d - z'_d|,    label k

The score is the accuracy of logistic regression on fresh points; 1 / factors is chance. It is the
oldest of the scores and the kindest: a factor spread over several latents still counts.

Higgins et al. 2017 (openreview Sy2fzU9gl), Section 3. Settings after Locatello et al. 2019: 64
pairs. Differs: 5,000 points each for fitting and for judging (10,000 and 5,000 there); every
coordinate of a point is standardised, so that the scale of a latent does not decide how soon the
classifier notices it; collapsed latents are left out as in the FactorVAE score; pairs are drawn
from a split, not rendered (see `groups`).
"""

import numpy as np
from jaxtyping import Float64, Int64
from sklearn.linear_model import LogisticRegression

from stages.core.randomness import numpy_stream
from stages.metrics.disentanglement.groups import active_latents, images_sharing
from stages.metrics.disentanglement.representation import FactorScore, Representation

__all__ = ["PAIRS", "POINTS", "beta_vae_score"]

PAIRS = 64
POINTS = 5000
"""For fitting, and as many for judging."""
_NUMBERS = 2**22
"""Latent numbers gathered at once, of either image of the pairs."""


def beta_vae_score(representation: Representation, seed: int) -> FactorScore:
    """Accuracy of the linear classifier, and that on the points of each factor.

    Args:
        representation: Latents in own units, and factors.
        seed: Of the pairs.
    """
    active, num_factors = active_latents(representation), representation.num_factors
    if not active.any():
        return FactorScore(1 / num_factors, np.full(num_factors, 1 / num_factors))
    latents = representation.latents[:, active]
    random = numpy_stream(seed, "beta_vae")
    points, labels = _points(representation, latents, random)
    centre, spread = points.mean(axis=0), points.std(axis=0)
    spread = np.where(spread > 0, spread, 1.0)
    classifier = LogisticRegression(max_iter=1000).fit((points - centre) / spread, labels)
    points, labels = _points(representation, latents, random)
    right = classifier.predict((points - centre) / spread) == labels
    per_factor = np.array([right[labels == factor].mean() for factor in range(num_factors)])
    return FactorScore(float(right.mean()), per_factor)


def _points(
    representation: Representation,
    latents: Float64[np.ndarray, "images active_dims"],
    random: np.random.Generator,
) -> tuple[Float64[np.ndarray, "points active_dims"], Int64[np.ndarray, " points"]]:
    """Mean distances, and the factor that the pairs of each point share."""
    labels = np.arange(POINTS) % representation.num_factors
    pairs = images_sharing(representation, np.repeat(labels, PAIRS), 2, random)
    pairs = pairs.reshape(POINTS, PAIRS, 2)
    step = max(1, _NUMBERS // (PAIRS * latents.shape[1]))
    points = []
    for start in range(0, POINTS, step):
        one, other = np.moveaxis(pairs[start : start + step], -1, 0)
        points.append(np.abs(latents[one] - latents[other]).mean(axis=1))
    return np.concatenate(points), labels
