"""SAP: how much better the best single latent predicts a factor than the second best.

    SAP = mean over factors k of S_ak - S_bk,    a, b: the latents of the highest and second score

Kumar et al. 2017 (arXiv:1711.00848), Section 3. A score S is, for a factor whose values have an
order, the share of its variance that a line through the latent explains,

    S = Cov(z, v)^2 / (Var z Var v)

and for one without order (a shape) the balanced accuracy of thresholds on the latent: each interval
decides for the value that has the largest share of its images there,

    S = 1 / values * sum over intervals i of max_j p(i given v = j)

A latent that knows nothing explains no variance, but guesses 1 / values of the shapes: the gap of a
factor without order ends at 1 - 1 / values, and the score below 1 where there is one.

Differs: thresholds stand between 20 bins of equal width instead of being searched for; accuracy is
that of the images they were set on, which flatters both latents alike. Values of an ordered
factor count as evenly spaced.
"""

import numpy as np
from jaxtyping import Float64, Int64

from stages.metrics.disentanglement.representation import (
    FactorScore,
    Representation,
    contingency,
    equal_width_bins,
    gap_to_second,
)

__all__ = ["separated_attribute_predictability", "single_latent_scores"]


def separated_attribute_predictability(representation: Representation) -> FactorScore:
    """The mean gap, and that of each factor."""
    per_factor = gap_to_second(single_latent_scores(representation))
    return FactorScore(float(per_factor.mean()), per_factor)


def single_latent_scores(
    representation: Representation,
) -> Float64[np.ndarray, "latent_dims factors"]:
    """How well each latent alone predicts each factor, 0 to 1."""
    explained = _explained_variance(representation)
    bins = equal_width_bins(representation.latents)
    for factor, categorical in enumerate(representation.categorical):
        if categorical:
            values = representation.factors[:, factor]
            explained[:, factor] = [
                _balanced_accuracy(contingency(latent, values)) for latent in bins.T
            ]
    return explained


def _explained_variance(
    representation: Representation,
) -> Float64[np.ndarray, "latent_dims factors"]:
    latents = representation.latents - representation.latents.mean(axis=0)
    factors = representation.factors - representation.factors.mean(axis=0)
    covariance = latents.T @ factors
    scatter = (latents**2).sum(axis=0)[:, None] * (factors**2).sum(axis=0)[None, :]
    return np.divide(covariance**2, scatter, out=np.zeros_like(scatter), where=scatter > 0)


def _balanced_accuracy(counts: Int64[np.ndarray, "bins values"]) -> float:
    shares = counts / counts.sum(axis=0, keepdims=True)
    return float(shares.max(axis=1).sum() / counts.shape[1])
