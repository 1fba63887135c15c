"""The FactorVAE score: which latent keeps still when one factor does?

For a group of images that share the value of factor k, the vote goes to the latent whose variance
in the group, relative to that over all images, is least:

    d* = argmin_d Var_group(z_d) / Var(z_d)

A table of votes (latent, factor) decides by majority which factor a latent stands for; the score
is the share of fresh votes it names rightly. 1 for one latent per factor or more; 1 / factors is
chance.

Kim & Mnih 2018 (arXiv:1802.05983), Section 4. Groups of 64 images, latents with a standard
deviation below 0.05 left out, and votes for deciding kept apart from votes for judging as in
Locatello et al. 2019. Differs: 5,000 votes each (10,000 and 5,000 there: a standard error below
0.007 either way); groups are drawn from a split, not rendered (see `groups`); where no latent is
left, the score is chance, 1 / factors, not 0.
"""

import numpy as np
from jaxtyping import Float64, Int64

from stages.core.randomness import numpy_stream
from stages.metrics.disentanglement.groups import active_latents, images_sharing
from stages.metrics.disentanglement.representation import FactorScore, Representation

__all__ = ["GROUP_IMAGES", "VOTES", "factor_vae_score"]

GROUP_IMAGES = 64
VOTES = 5000
"""For deciding, and as many for judging."""
_NUMBERS = 2**23
"""Latent numbers gathered at once."""


def factor_vae_score(representation: Representation, seed: int) -> FactorScore:
    """Accuracy of the majority vote, and that of the votes of each factor.

    Args:
        representation: Latents in own units, and factors.
        seed: Of the groups.
    """
    active, num_factors = active_latents(representation), representation.num_factors
    if not active.any():
        return FactorScore(1 / num_factors, np.full(num_factors, 1 / num_factors))
    latents = representation.latents[:, active]
    latents = (latents - latents.mean(axis=0)) / latents.std(axis=0)
    random = numpy_stream(seed, "factor_vae")
    stillest, fixed = _votes(representation, latents, random)
    table = np.zeros((latents.shape[1], num_factors), dtype=np.int64)
    np.add.at(table, (stillest, fixed), 1)
    stands_for = table.argmax(axis=1)
    stillest, fixed = _votes(representation, latents, random)
    right = stands_for[stillest] == fixed
    per_factor = np.array([right[fixed == factor].mean() for factor in range(num_factors)])
    return FactorScore(float(right.mean()), per_factor)


def _votes(
    representation: Representation,
    latents: Float64[np.ndarray, "images active_dims"],
    random: np.random.Generator,
) -> tuple[Int64[np.ndarray, " votes"], Int64[np.ndarray, " votes"]]:
    """The stillest latent of each group, and the factor it shares."""
    # Every factor equally often, so that the accuracy of none rests on a handful of votes.
    fixed = np.arange(VOTES) % representation.num_factors
    rows = images_sharing(representation, fixed, GROUP_IMAGES, random)
    step = max(1, _NUMBERS // (GROUP_IMAGES * latents.shape[1]))
    stillest = [
        latents[rows[start : start + step]].var(axis=1).argmin(axis=1)
        for start in range(0, VOTES, step)
    ]
    return np.concatenate(stillest), fixed
