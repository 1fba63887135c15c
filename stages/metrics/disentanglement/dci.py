"""DCI: disentanglement, completeness, informativeness.

Each factor is predicted from all latents; R_ij is how much the prediction of factor j relies on
latent i. With rows (columns) of R read as probabilities over factors (latents):

    disentanglement   sum over latents i of rho_i (1 - H(R_i.) / log factors)
    completeness      sum over factors j of rho_j (1 - H(R_.j) / log latent_dims)
    informativeness   mean over factors of the accuracy on images held out

rho is the share of all reliance that falls to a latent (factor): a latent nobody relies on does
not count. A copied latent leaves disentanglement at 1 and lowers completeness; a rotation lowers
both; neither touches informativeness.

Eastwood & Williams 2018 (openreview By-7dz-AZ), Section 2. R: the importances of a random forest,
one of the paper's two predictors: the decrease of Gini impurity, summed over splits, as a share of
the whole. Every split may choose among all latents; with a random few on offer it would often have
to take one that knows nothing.

Trees stop at leaves of a hundredth of the images. The choice matters: below that, splits fit noise,
and every latent has noise to offer. For five factors in latents of their own with noise of a sixth
of the signal, disentanglement was 0.25 with leaves of 4 of 3,000 images, 0.55 with 25 and 0.75 with
60, while informativeness, by which the paper chooses depth, was best at 25 to 60. Compare only
figures of one protocol.

Differs: every value of a factor is a class and informativeness an accuracy, as in Locatello et
al. 2019 (who boost trees, at many times the cost: 0.43 in the example above), so that factors with
and without order share one scale; the size of leaves is fixed, not found by cross-validation.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64
from sklearn.ensemble import RandomForestClassifier

from stages.core.randomness import derive_seed, permutation
from stages.metrics.disentanglement.representation import Representation

__all__ = ["LEAF_SHARE", "TREES", "DCIScores", "concentration", "dci_scores"]

TREES = 30
LEAF_SHARE = 0.01
"""Of the images a tree is fitted on, the fewest in a leaf."""


@dataclass(frozen=True)
class DCIScores:
    """The three scores, each between 0 and 1, and what they are made of."""

    disentanglement: float
    completeness: float
    informativeness: float
    importances: Float64[np.ndarray, "latent_dims factors"]
    """R; a column sums to 1, or to 0 where nothing predicts the factor."""
    completeness_per_factor: Float64[np.ndarray, " factors"]
    informativeness_per_factor: Float64[np.ndarray, " factors"]


def dci_scores(representation: Representation, seed: int) -> DCIScores:
    """Fit one forest a factor on half of the images; accuracy is that on the other half.

    Args:
        representation: Latents and factors.
        seed: Of the halves and the forests.
    """
    shuffled = permutation(representation.num_images, seed, "dci", "halves")
    fitted, held_out = np.array_split(shuffled, 2)
    latents, factors = representation.latents, representation.factors
    importances = np.zeros((latents.shape[1], factors.shape[1]))
    accuracies = np.zeros(factors.shape[1])
    for index, values in enumerate(factors.T):
        forest = RandomForestClassifier(
            n_estimators=TREES,
            min_samples_leaf=LEAF_SHARE,
            max_features=None,
            random_state=derive_seed(seed, "dci", "forest", index) % 2**32,
        )
        forest.fit(latents[fitted], values[fitted])
        importances[:, index] = forest.feature_importances_
        accuracies[index] = (forest.predict(latents[held_out]) == values[held_out]).mean()
    disentanglement, _ = concentration(importances)
    completeness, per_factor = concentration(importances.T)
    return DCIScores(
        disentanglement,
        completeness,
        float(accuracies.mean()),
        importances,
        per_factor,
        accuracies,
    )


def concentration(
    matrix: Float64[np.ndarray, "rows columns"],
) -> tuple[float, Float64[np.ndarray, " rows"]]:
    """How far each row keeps to one column, and the mean of that weighted by the rows' sums.

    Args:
        matrix: Not negative.

    Returns:
        The mean, and of each row 1 - H / log columns: 1 for one entry, 0 for equal ones and for
        a row of zeros.
    """
    sums = matrix.sum(axis=1, keepdims=True)
    columns = matrix.shape[1]
    shares = np.divide(matrix, sums, out=np.full_like(matrix, 1 / columns), where=sums > 0)
    logarithms = np.log(shares, out=np.zeros_like(shares), where=shares > 0)
    per_row = 1 + (shares * logarithms).sum(axis=1) / np.log(columns)
    total = sums.sum()
    mean = float((per_row * sums[:, 0]).sum() / total) if total > 0 else 0.0
    return mean, per_row
