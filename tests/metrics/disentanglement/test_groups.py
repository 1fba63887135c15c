"""Groups share what they must, and are drawn evenly from what there is."""

import numpy as np
import pytest

from stages.core.errors import DataError
from stages.metrics.disentanglement.groups import active_latents, images_sharing
from stages.metrics.disentanglement.representation import represent
from tests.metrics.disentanglement.constructed import perfect


def test_images_of_a_group_share_their_factor_and_no_other() -> None:
    representation = perfect(repeats=2)
    fixed = np.arange(300) % 3
    rows = images_sharing(representation, fixed, 7, np.random.default_rng(0))
    assert rows.shape == (300, 7)
    values = representation.factors[rows]
    shared = (values == values[:, :1]).all(axis=1)
    assert shared[np.arange(300), fixed].all()
    # Seven images agree in another factor with probability 3^-6 and less.
    assert shared.sum() < 300 + 10


def test_the_first_image_is_not_drawn_again() -> None:
    representation = perfect(repeats=1)
    rows = images_sharing(representation, np.zeros(500, dtype=int), 2, np.random.default_rng(1))
    assert (rows[:, 0] != rows[:, 1]).all()


def test_values_are_drawn_evenly_however_rare_and_images_within_them() -> None:
    # Value 0: rows 0 to 8; value 1: rows 9 to 11; value 2: row 12 alone, which can not be shared.
    values = np.repeat([0, 1, 2], [9, 3, 1])
    factors = np.stack([values, np.arange(13) % 2], axis=1)
    latents = np.random.default_rng(0).standard_normal((13, 4))
    representation = represent(latents, factors)
    fixed = np.zeros(20_000, dtype=int)
    rows = images_sharing(representation, fixed, 3, np.random.default_rng(2))
    for place in range(3):
        counts = np.bincount(rows[:, place], minlength=13)
        expected = 20_000 / 2 / np.repeat([9, 3], [9, 3])
        # Four standard errors of a binomial count.
        assert (np.abs(counts[:12] - expected) < 4 * np.sqrt(expected)).all()
        assert counts[12] == 0


def test_a_factor_nobody_shares_is_refused() -> None:
    factors = np.stack([np.arange(12), np.arange(12) % 3], axis=1)
    representation = represent(np.random.default_rng(0).standard_normal((12, 5)), factors)
    with pytest.raises(DataError, match="'0': two images at least must share"):
        images_sharing(representation, np.zeros(4, dtype=int), 3, np.random.default_rng(0))


def test_collapsed_latents_are_known_by_their_spread() -> None:
    latents = np.random.default_rng(0).standard_normal((4000, 3)) * [1.0, 0.06, 0.04]
    factors = np.stack([np.arange(4000) % 3, np.arange(4000) % 2], axis=1)
    np.testing.assert_array_equal(active_latents(represent(latents, factors)), [True, True, False])
