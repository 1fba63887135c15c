"""How latents line up with the known factors of the test images: five scores, seven figures.

    mig                                       is a factor in one latent only?
    factor_vae_score, beta_vae_score          can the shared factor of a group be told?
    dci_disentanglement, _completeness        one factor a latent? one latent a factor?
    dci_informativeness                       can factors be predicted at all?
    sap                                       how much better is the best latent than the second?

Taken on posterior means as they are stored, the scale undone; on points where there is no
posterior. No network runs. Every factor that changes is judged, shapes too (leaving them out lifts
the mean, as in beta-TCVAE's program). Integers in `factors.parquet` are values without order,
fractions have one. Values that are equal in the file are one value.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from stages.core.randomness import permutation
from stages.metrics.base import Figure, Protocol
from stages.metrics.disentanglement.beta_vae import PAIRS, POINTS, beta_vae_score
from stages.metrics.disentanglement.dci import LEAF_SHARE, TREES, DCIScores, dci_scores
from stages.metrics.disentanglement.factor_vae import GROUP_IMAGES, VOTES, factor_vae_score
from stages.metrics.disentanglement.groups import ACTIVE_STD, active_latents
from stages.metrics.disentanglement.mutual_information_gap import (
    GapScore,
    entropies,
    mutual_information_gap,
    mutual_informations,
)
from stages.metrics.disentanglement.representation import (
    NUM_BINS,
    FactorScore,
    Representation,
    represent,
)
from stages.metrics.disentanglement.sap import separated_attribute_predictability
from stages.stores.latents import LatentSplit
from stages.stores.prepared import PreparedSplit

__all__ = ["TITLE", "FactorJudgement", "judge_factors", "represent_split"]

TITLE = "Disentanglement"
"""Heading of the figures in the report."""

_GROUPS = {
    "groups": "drawn from these images by the value of the shared factor, others with replacement",
    "active_latents": f"standard deviation of the means from {ACTIVE_STD} on",
}


@dataclass(frozen=True)
class FactorJudgement:
    """What was found."""

    figures: list[Figure]
    table: pd.DataFrame
    """One row a factor: its values, its entropy, the latent that knows most of it, the scores."""


@dataclass(frozen=True)
class _Scores:
    gap: GapScore
    votes: FactorScore
    pairs: FactorScore
    forests: DCIScores
    predictability: FactorScore


def judge_factors(
    images: PreparedSplit, latents: LatentSplit, limit: int, seed: int, protocol: Protocol
) -> FactorJudgement | None:
    """All scores of a split, where they have a meaning.

    Args:
        images: The split, with its factors where they are known.
        latents: The same split's latents, one row an image.
        limit: Images to look at; 0: none.
        seed: Which ones, and of the draws and forests.
        protocol: What is common to all figures of the split.

    Returns:
        None without factors that change, for codes, for a single latent number, and for limit 0.
    """
    representation = represent_split(images, latents, limit, seed)
    if representation is None:
        return None
    scores = _Scores(
        gap=mutual_information_gap(representation),
        votes=factor_vae_score(representation, seed),
        pairs=beta_vae_score(representation, seed),
        forests=dci_scores(representation, seed),
        predictability=separated_attribute_predictability(representation),
    )
    how = _common(representation, protocol).also(seed=seed)
    return FactorJudgement(_figures(scores, representation, how), _table(scores, representation))


def represent_split(
    images: PreparedSplit, latents: LatentSplit, limit: int, seed: int
) -> Representation | None:
    """Means and factors of at most `limit` images, drawn at random; arguments and None as above."""
    spec, factors = latents.header.spec, images.factors
    if limit == 0 or factors is None or spec.kind == "codes" or spec.numbers < 2:
        return None
    # Not evenly spaced: a factorial stands in order, and a stride might see few of its values.
    rows = np.sort(permutation(len(latents), seed, "factors", "images")[:limit])
    seen = factors.iloc[latents.index[rows]]
    seen = seen[[name for name in seen if seen[name].nunique() > 1]]
    if seen.shape[1] < 2:
        return None
    means = latents.batch(rows).mean
    assert means is not None, "continuous latents have a mean"
    return represent(
        means.double().flatten(1).numpy() / spec.scale,
        np.stack([_ranks(seen[name]) for name in seen], axis=1),
        names=[str(name) for name in seen],
        categorical=[seen[name].dtype.kind in "iu" for name in seen],
    )


def _ranks(values: pd.Series) -> np.ndarray:
    return np.unique(values.to_numpy(), return_inverse=True)[1]


def _common(representation: Representation, protocol: Protocol) -> Protocol:
    factors = zip(representation.names, representation.num_values, strict=True)
    return protocol.also(
        reference_n=representation.num_images,
        latents="posterior means in the autoencoder's own units, or points",
        factors={name: int(count) for name, count in factors},
        chosen="at random",
        found={
            "latent_dimensions": representation.latents.shape[1],
            "active_latent_dimensions": int(active_latents(representation).sum()),
        },
    )


def _figures(scores: _Scores, representation: Representation, how: Protocol) -> list[Figure]:
    binned = how.also(bins=f"{NUM_BINS} of equal width per latent")
    votes = how.also(**_GROUPS, votes=VOTES, votes_to_decide=VOTES, group=GROUP_IMAGES)
    pairs = how.also(
        **_GROUPS,
        classifier="logistic regression",
        points=POINTS,
        points_to_fit=POINTS,
        pairs=PAIRS,
    )
    forests = how.also(
        predictor=f"random forest: {TREES} trees, leaves of {LEAF_SHARE:.0%} of images or more",
        fitted_on="one half of the images",
    )
    rule = "squared correlation; balanced accuracy of thresholds for factors without order"
    values = [
        ("mig", scores.gap.score, "share of entropy", binned),
        ("factor_vae_score", scores.votes.score, "share", votes),
        ("beta_vae_score", scores.pairs.score, "share", pairs),
        ("dci_disentanglement", scores.forests.disentanglement, "1", forests),
        ("dci_completeness", scores.forests.completeness, "1", forests),
        (
            "dci_informativeness",
            scores.forests.informativeness,
            "share",
            forests.also(accuracy_on="the other half"),
        ),
        ("sap", scores.predictability.score, "1", binned.also(single_latent_score=rule)),
    ]
    n = representation.num_images
    return [
        Figure(name, value, unit, "higher", n, protocol) for name, value, unit, protocol in values
    ]


def _table(scores: _Scores, representation: Representation) -> pd.DataFrame:
    best = scores.gap.best_latent
    informations = mutual_informations(representation)
    return pd.DataFrame(
        {
            "factor": representation.names,
            "values": representation.num_values,
            "ordered": [not value for value in representation.categorical],
            "entropy_nats": entropies(representation),
            "best_latent": best,
            "best_latent_nats": informations[best, np.arange(len(best))],
            "mig": scores.gap.per_factor,
            "factor_vae_recall": scores.votes.per_factor,
            "beta_vae_recall": scores.pairs.per_factor,
            "dci_completeness": scores.forests.completeness_per_factor,
            "dci_informativeness": scores.forests.informativeness_per_factor,
            "sap": scores.predictability.per_factor,
        }
    )
