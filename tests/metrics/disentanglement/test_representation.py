"""The door: what comes the wrong way round does not get in."""

import numpy as np
import pytest

from stages.core.errors import DataError
from stages.metrics.disentanglement.representation import (
    contingency,
    equal_width_bins,
    gap_to_second,
    represent,
)
from tests.metrics.disentanglement.constructed import factorial, perfect_latents


def test_trap_transposition_is_refused_at_the_door() -> None:
    factors = factorial()
    latents = perfect_latents(factors)
    represent(latents, factors)
    for wrong in ((latents.T, factors), (latents, factors.T), (latents.T, factors.T)):
        with pytest.raises(DataError, match="first axis"):
            represent(*wrong)
    with pytest.raises(DataError, match="other way round"):
        represent(factors, latents)


def test_what_can_not_be_judged_is_refused() -> None:
    factors = factorial()
    latents = perfect_latents(factors)
    with pytest.raises(DataError, match="two latents and two factors"):
        represent(latents[:, :1], factors)
    with pytest.raises(DataError, match="two latents and two factors"):
        represent(latents, factors[:, :1])
    with pytest.raises(DataError, match="finite"):
        represent(np.where(latents == 0, np.nan, latents), factors)
    with pytest.raises(DataError, match="'hue' must take two values"):
        represent(latents, factors * [1, 0, 1], names=["shape", "hue", "x"])


def test_factors_are_counted_from_zero_whatever_their_numbers() -> None:
    factors = factorial()
    found = represent(perfect_latents(factors), 10 * factors - 7)
    np.testing.assert_array_equal(found.factors, factors)
    assert found.num_values == (4, 5, 3)


def test_bins_are_of_equal_width_and_the_last_is_closed() -> None:
    latents = np.array([[0.0, 3.0], [0.24, 3.0], [0.26, 3.0], [0.99, 3.0], [1.0, 3.0]])
    np.testing.assert_array_equal(equal_width_bins(latents, 4)[:, 0], [0, 0, 1, 3, 3])
    np.testing.assert_array_equal(equal_width_bins(latents, 4)[:, 1], 0)
    counts = np.bincount(equal_width_bins(np.linspace(0, 1, 2001)[:, None])[:, 0])
    np.testing.assert_array_equal(counts, [100] * 19 + [101])


def test_contingency_is_a_slow_count() -> None:
    random = np.random.default_rng(0)
    rows, columns = random.integers(4, size=50), random.integers(3, size=50)
    slow = np.zeros((4, 3), dtype=int)
    for row, column in zip(rows, columns, strict=True):
        slow[row, column] += 1
    np.testing.assert_array_equal(contingency(rows, columns), slow)


def test_gap_is_between_the_best_latents_of_each_factor() -> None:
    matrix = np.array([[0.1, 0.9], [0.7, 0.3], [0.6, 0.2]])
    np.testing.assert_allclose(gap_to_second(matrix), [0.1, 0.6])
