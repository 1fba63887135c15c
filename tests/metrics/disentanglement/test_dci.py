"""DCI of representations whose scores are known, and its entropies in closed form."""

import math

import numpy as np
import pytest

from stages.metrics.disentanglement.dci import concentration, dci_scores
from stages.metrics.disentanglement.representation import represent
from tests.metrics.disentanglement.constructed import (
    HOMES,
    LATENT_DIMS,
    VALUES,
    copied,
    entangled,
    perfect,
    permuted_and_scaled,
    rotated,
    unrelated,
)


def test_concentration_in_closed_form() -> None:
    matrix = np.array([[2.0, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]])
    mean, per_row = concentration(matrix)
    np.testing.assert_allclose(per_row, [1, 1 - math.log(2) / math.log(4), 0, 0], atol=1e-12)
    # Weights 2, 2, 4 and 0 of 8.
    assert mean == pytest.approx((2 * 1 + 2 * 0.5 + 4 * 0) / 8)
    assert concentration(np.zeros((3, 2)))[0] == 0


def test_one_latent_per_factor_has_all_three() -> None:
    found = dci_scores(perfect(), seed=0)
    expected = np.zeros((LATENT_DIMS, len(VALUES)))
    expected[HOMES, np.arange(3)] = 1
    np.testing.assert_allclose(found.importances, expected, atol=1e-12)
    assert found.disentanglement == pytest.approx(1)
    assert found.completeness == pytest.approx(1)
    assert found.informativeness == 1


def test_noise_is_not_taken_for_reliance_on_other_latents() -> None:
    clean = perfect(repeats=50)
    noise = 0.4 * np.random.default_rng(0).standard_normal(clean.latents.shape)
    found = dci_scores(represent(clean.latents + noise, clean.factors), seed=0)
    # Leaves of a few images would split what noise leaves over, by all latents alike.
    assert found.disentanglement > 0.8
    assert found.completeness > 0.8
    assert 0.7 < found.informativeness < 0.9


def test_a_copied_latent_costs_completeness_only() -> None:
    found = dci_scores(copied(), seed=0)
    assert found.disentanglement == pytest.approx(1)
    assert found.informativeness == 1
    # Trees choose between equals by chance: about half of their splits each.
    halved = 1 - math.log(2) / math.log(LATENT_DIMS)
    np.testing.assert_allclose(found.completeness_per_factor, [1, halved, 1], atol=0.1)


def test_a_rotation_costs_disentanglement_and_completeness_not_informativeness() -> None:
    found = dci_scores(rotated(), seed=0)
    assert found.disentanglement < 0.1
    # Two of three latents are relied on equally: the third is empty.
    assert found.completeness == pytest.approx(1 - math.log(2) / math.log(3), abs=0.1)
    assert found.informativeness == 1


def test_latents_that_know_nothing_inform_as_much_as_chance() -> None:
    representation = unrelated()
    found = dci_scores(representation, seed=0)
    assert found.disentanglement < 0.05
    assert found.completeness < 0.05
    chance = 1 / np.array(VALUES)
    error = np.sqrt(chance * (1 - chance) / (representation.num_images / 2))
    assert (np.abs(found.informativeness_per_factor - chance) < 4 * error).all()


def test_order_scale_and_origin_of_latents_matter_by_chance_only() -> None:
    plain, changed = dci_scores(entangled(), 0), dci_scores(permuted_and_scaled(entangled()), 0)
    assert 0.05 < plain.disentanglement < 0.9
    for name in ("disentanglement", "completeness", "informativeness"):
        assert getattr(changed, name) == pytest.approx(getattr(plain, name), abs=0.03)


def test_the_seed_decides() -> None:
    one, again, other = (dci_scores(entangled(), seed) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one.importances, again.importances)
    assert not np.array_equal(one.importances, other.importances)
