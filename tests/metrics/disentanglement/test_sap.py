"""SAP of representations whose gap is known in closed form."""

import numpy as np
import pytest

from stages.metrics.disentanglement.representation import represent
from stages.metrics.disentanglement.sap import (
    separated_attribute_predictability,
    single_latent_scores,
)
from tests.metrics.disentanglement.constructed import (
    HOMES,
    ORDER,
    copied,
    entangled,
    factorial,
    perfect,
    perfect_latents,
    permuted_and_scaled,
    rotated,
    unrelated,
)


def test_one_latent_per_factor_has_gap_1() -> None:
    scores = single_latent_scores(perfect())
    expected = np.zeros_like(scores)
    expected[HOMES, np.arange(3)] = 1
    np.testing.assert_allclose(scores, expected, atol=1e-12)
    assert separated_attribute_predictability(perfect()).score == pytest.approx(1)


def test_a_copied_latent_takes_the_gap_of_its_factor_alone() -> None:
    found = separated_attribute_predictability(copied())
    np.testing.assert_allclose(found.per_factor, [1, 0, 1], atol=1e-12)
    assert found.score == pytest.approx(2 / 3)


def test_a_rotation_by_45_degrees_explains_half_twice() -> None:
    np.testing.assert_allclose(single_latent_scores(rotated())[:2], 0.5)
    assert separated_attribute_predictability(rotated()).score == pytest.approx(0, abs=1e-12)


def test_latents_that_know_nothing_explain_one_share_in_n() -> None:
    representation = unrelated()
    scores = single_latent_scores(representation)
    # n r^2 of independent numbers is chi-squared with one degree of freedom.
    assert abs((representation.num_images * scores - 1).sum()) < 4 * np.sqrt(2 * scores.size)
    assert separated_attribute_predictability(representation).score < 0.01


def test_squared_correlation_is_numpys() -> None:
    representation = entangled()
    both = np.concatenate([representation.latents, representation.factors], axis=1)
    expected = np.corrcoef(both.T)[:5, 5:] ** 2
    np.testing.assert_allclose(single_latent_scores(representation), expected)


def test_order_scale_and_origin_of_latents_do_not_matter() -> None:
    for categorical in (False, True):
        plain = entangled()
        plain = represent(plain.latents, plain.factors, categorical=[categorical] * 3)
        changed = permuted_and_scaled(plain)
        changed = represent(changed.latents, changed.factors, categorical=[categorical] * 3)
        np.testing.assert_allclose(
            single_latent_scores(changed), single_latent_scores(plain)[ORDER]
        )


def test_a_factor_without_order_is_judged_by_thresholds() -> None:
    factors = factorial()
    latents = perfect_latents(factors)
    # Values 0, 1, 2 stand in the order 1, 0, 2: a line sees little of it, thresholds all.
    latents[:, HOMES[2]] = np.array([1.0, 0.0, 2.0])[factors[:, 2]]
    lined = single_latent_scores(represent(latents, factors))
    split = single_latent_scores(represent(latents, factors, categorical=[False, False, True]))
    assert lined[HOMES[2], 2] == pytest.approx(0.25)
    assert split[HOMES[2], 2] == pytest.approx(1)
    # Empty latents are in one bin, where every value has the same share.
    np.testing.assert_allclose(split[[2, 4], 2], 1 / 3)
    np.testing.assert_array_equal(split[:, :2], lined[:, :2])


def test_balanced_accuracy_counts_values_not_images() -> None:
    # Value 1 is rare and shares its interval with a tenth of value 0: 0.9 and 1 are told.
    latent = np.concatenate([np.zeros(90), np.ones(10), np.ones(5)])
    values = np.concatenate([np.zeros(100, dtype=int), np.ones(5, dtype=int)])
    latents = np.stack([latent, np.zeros(105), np.arange(105.0)], axis=1)
    factors = np.stack([values, np.arange(105) % 2], axis=1)
    scores = single_latent_scores(represent(latents, factors, categorical=[True, False]))
    assert scores[0, 0] == pytest.approx((0.9 + 1) / 2)
