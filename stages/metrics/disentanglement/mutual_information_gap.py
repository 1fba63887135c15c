"""MIG: is each factor in one latent only?

    MIG = mean over factors k of (I(z_a; v_k) - I(z_b; v_k)) / H(v_k)
    a, b: the latents that know most and second most of factor k

Chen et al. 2018 (arXiv:1802.04942), Eq. 6. 1 where one latent determines the factor and no other
knows of it; 0 where two latents know equally much, as after a rotation. Mutual information is that
of the table of counts of factor and binned latent, in nats:

    I(z; v) = sum over bins i, values j of p_ij log(p_ij / (p_i. p_.j))

Of n images such a table claims about (bins - 1)(values - 1) / (2 n) nats too much (Miller 1955);
it does so of both latents, and the gap keeps little of it. With 20 bins a factor of 32 values is
known to log 20 nats at most: its own gap ends at log 20 / log 32 = 0.86.

Differs: of posterior means in bins, as Locatello et al. 2019 measure it, not of draws with the
density of the posterior. Counted here: scikit-learn's `mutual_info_score` gave other values in
other versions (google-research/disentanglement_lib, issue 33), and given numbers that were not
binned it takes each for a class of its own.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int64

from stages.metrics.disentanglement.representation import (
    FactorScore,
    Representation,
    contingency,
    equal_width_bins,
    gap_to_second,
)

__all__ = ["GapScore", "entropies", "mutual_information_gap", "mutual_informations"]


@dataclass(frozen=True)
class GapScore(FactorScore):
    """The gap, and which latent knows most of each factor."""

    best_latent: Int64[np.ndarray, " factors"]


def mutual_information_gap(representation: Representation) -> GapScore:
    """The mean gap, and that of each factor."""
    informations = mutual_informations(representation)
    per_factor = gap_to_second(informations) / entropies(representation)
    return GapScore(float(per_factor.mean()), per_factor, informations.argmax(axis=0))


def mutual_informations(
    representation: Representation,
) -> Float64[np.ndarray, "latent_dims factors"]:
    """I(binned latent; factor) of every pair, in nats."""
    bins = equal_width_bins(representation.latents)
    return np.array(
        [
            [_information(contingency(latent, factor)) for factor in representation.factors.T]
            for latent in bins.T
        ]
    )


def entropies(representation: Representation) -> Float64[np.ndarray, " factors"]:
    """H of each factor in nats."""
    return np.array([_entropy(np.bincount(factor)) for factor in representation.factors.T])


def _information(counts: Int64[np.ndarray, "bins values"]) -> float:
    # H(row) + H(column) - H(both) would lose a small difference of large numbers.
    shares = counts / counts.sum()
    independent = shares.sum(axis=1, keepdims=True) * shares.sum(axis=0, keepdims=True)
    seen = shares > 0
    return float((shares[seen] * np.log(shares[seen] / independent[seen])).sum())


def _entropy(counts: Int64[np.ndarray, " values"]) -> float:
    shares = counts[counts > 0] / counts.sum()
    return float(-(shares * np.log(shares)).sum())
