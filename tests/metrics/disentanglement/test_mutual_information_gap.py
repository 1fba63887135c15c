"""MIG of representations whose gap is known in closed form, and the traps of the field."""

import math

import numpy as np
import pytest
import sklearn.metrics

from stages.metrics.disentanglement.mutual_information_gap import (
    entropies,
    mutual_information_gap,
    mutual_informations,
)
from stages.metrics.disentanglement.representation import equal_width_bins, represent
from tests.metrics.disentanglement.constructed import (
    HOMES,
    ORDER,
    VALUES,
    copied,
    entangled,
    perfect,
    perfect_latents,
    permuted_and_scaled,
    rotated,
    unrelated,
)


def slow_informations(latents: np.ndarray, factors: np.ndarray) -> np.ndarray:
    """The double sum over bins and values, spelled out."""
    bins, n = equal_width_bins(latents), len(latents)
    found = np.zeros((latents.shape[1], factors.shape[1]))
    for d in range(latents.shape[1]):
        for k in range(factors.shape[1]):
            for i in set(bins[:, d].tolist()):
                for j in set(factors[:, k].tolist()):
                    both = ((bins[:, d] == i) & (factors[:, k] == j)).sum() / n
                    alone = (bins[:, d] == i).mean() * (factors[:, k] == j).mean()
                    found[d, k] += both * math.log(both / alone) if both else 0.0
    return found


def test_one_latent_per_factor_has_gap_1() -> None:
    found = mutual_information_gap(perfect())
    np.testing.assert_allclose(found.per_factor, 1)
    assert found.score == pytest.approx(1)
    np.testing.assert_array_equal(found.best_latent, HOMES)
    np.testing.assert_allclose(entropies(perfect()), np.log(VALUES))


def test_a_copied_latent_takes_the_gap_of_its_factor_alone() -> None:
    found = mutual_information_gap(copied())
    np.testing.assert_allclose(found.per_factor, [1, 0, 1], atol=1e-12)
    assert found.score == pytest.approx(2 / 3)


def test_a_rotation_by_45_degrees_leaves_no_gap() -> None:
    found = mutual_informations(rotated())
    # z is the sum of two of four values: 1 2 3 4 3 2 1 of 16; given one value, of 4 equal cases.
    of_sum = -sum(c / 16 * math.log(c / 16) for c in (1, 2, 3, 4, 3, 2, 1))
    np.testing.assert_allclose(found[:2], of_sum - math.log(4))
    np.testing.assert_allclose(found[2], 0, atol=1e-15)
    assert mutual_information_gap(rotated()).score == pytest.approx(0, abs=1e-12)


def test_latents_that_know_nothing_have_the_bias_of_the_table() -> None:
    representation = unrelated()
    bins = np.array([len(np.unique(b)) for b in equal_width_bins(representation.latents).T])
    # Under independence 2 n I is chi-squared: mean (bins - 1)(values - 1), variance twice that.
    free = (bins[:, None] - 1) * (np.array(VALUES) - 1)
    statistic = 2 * representation.num_images * mutual_informations(representation)
    assert abs((statistic - free).sum()) < 4 * math.sqrt(2 * free.sum())
    assert mutual_information_gap(representation).score < 0.02


def test_order_scale_and_origin_of_latents_do_not_matter() -> None:
    plain, changed = entangled(), permuted_and_scaled(entangled())
    before, after = mutual_informations(plain), mutual_informations(changed)
    np.testing.assert_allclose(after, before[ORDER])
    assert 0.01 < mutual_information_gap(plain).score < 0.9
    assert mutual_information_gap(changed).score == pytest.approx(
        mutual_information_gap(plain).score
    )


def test_more_values_than_bins_bound_the_gap() -> None:
    factors = np.stack([np.arange(640) % 32, np.arange(640) // 32 % 4], axis=1)
    found = mutual_information_gap(represent(factors.astype(np.float64), factors))
    twice = np.bincount(np.minimum(np.arange(32) / 31 * 20, 19).astype(int)) / 32
    assert found.per_factor[0] == pytest.approx(-(twice * np.log(twice)).sum() / math.log(32))
    assert found.per_factor[0] < math.log(20) / math.log(32)


def test_trap_transposition_by_reshape() -> None:
    """`.view` where `.t()` was meant keeps the shape and scrambles the numbers."""
    representation = entangled()
    np.testing.assert_allclose(
        mutual_informations(representation),
        slow_informations(representation.latents, representation.factors),
        atol=1e-12,
    )
    right = perfect()
    latents = perfect_latents(right.factors)
    scrambled = represent(latents.T.reshape(latents.shape), right.factors)
    assert mutual_information_gap(scrambled).score < 0.05
    assert mutual_information_gap(right).score == pytest.approx(1)


def test_trap_sklearn_mutual_information(monkeypatch: pytest.MonkeyPatch) -> None:
    """No version of scikit-learn decides about it; the one here agrees on the same bins."""
    representation = entangled()
    bins = equal_width_bins(representation.latents)
    theirs = [
        [sklearn.metrics.mutual_info_score(factor, latent) for factor in representation.factors.T]
        for latent in bins.T
    ]

    def refuse(*_: object) -> float:
        raise AssertionError("scikit-learn was asked")

    monkeypatch.setattr(sklearn.metrics, "mutual_info_score", refuse)
    monkeypatch.setattr(sklearn.metrics.cluster, "mutual_info_score", refuse)
    np.testing.assert_allclose(mutual_informations(representation), theirs, rtol=1e-9)


def test_trap_mutual_information_of_latents_without_bins() -> None:
    """Numbers that are all different would each be a class: every latent would know all."""
    representation = unrelated()
    assert len(np.unique(representation.latents[:, 0])) == representation.num_images
    assert (mutual_informations(representation) < 0.1 * entropies(representation)).all()
