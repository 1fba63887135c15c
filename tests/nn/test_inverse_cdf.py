"""Draws as functions of uniform numbers."""

import pytest
import torch

from stages.nn.inverse_cdf import index_from_uniform, normal_from_uniform, truncated

LOGITS = torch.tensor([0.1, 0.2, 0.3, 0.4]).log()


@pytest.mark.parametrize(
    ("uniform", "index"), [(1e-7, 0), (0.0999, 0), (0.1001, 1), (0.5999, 2), (1 - 2**-24, 3)]
)
def test_an_index_is_where_the_cumulative_probability_passes_the_uniform(uniform, index):
    drawn = index_from_uniform(LOGITS.expand(2, 4), torch.full((2,), uniform))
    assert drawn.tolist() == [index, index]


def test_impossible_indices_are_never_drawn():
    logits = torch.tensor([-torch.inf, 0.0, -torch.inf, -torch.inf]).expand(3, 4)
    drawn = index_from_uniform(logits, torch.tensor([2.0**-25, 0.5, 1 - 2.0**-24]))
    assert drawn.tolist() == [1, 1, 1]


def test_frequencies_over_an_even_grid_of_uniforms_are_the_probabilities():
    count = 10_000
    uniforms = (torch.arange(count) + 0.5) / count
    drawn = index_from_uniform(LOGITS.expand(count, 4), uniforms)
    frequencies = torch.bincount(drawn, minlength=4) / count
    torch.testing.assert_close(frequencies, LOGITS.exp(), rtol=0, atol=1.5 / count)


def test_normal_numbers_invert_the_distribution_function_and_stay_finite():
    uniforms = torch.linspace(0.001, 0.999, 21)
    numbers = normal_from_uniform(uniforms)
    torch.testing.assert_close(torch.special.ndtr(numbers), uniforms)
    extremes = normal_from_uniform(torch.tensor([0.0, 1.0]))
    assert extremes.isfinite().all() and extremes[0] == -extremes[1]


def test_top_k_keeps_the_k_most_probable():
    assert truncated(LOGITS[None], 2, 1.0)[0].isfinite().tolist() == [False, False, True, True]
    for everything in (0, 4, 9):
        assert torch.equal(truncated(LOGITS[None], everything, 1.0)[0], LOGITS)


@pytest.mark.parametrize(
    ("top_p", "kept"), [(0.01, 1), (0.39, 1), (0.41, 2), (0.71, 3), (0.95, 4), (1.0, 4)]
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(top_p, kept):
    left = truncated(LOGITS[None], 0, top_p)[0].isfinite()
    assert left.tolist() == [False] * (4 - kept) + [True] * kept


def test_top_p_counts_within_the_top_k():
    # Of the top two, 0.4 / 0.7 = 0.57 of the probability is the first's.
    assert truncated(LOGITS[None], 2, 0.5)[0].isfinite().sum() == 1
    assert truncated(LOGITS[None], 2, 0.6)[0].isfinite().sum() == 2


@pytest.mark.parametrize(
    ("min_p", "kept"), [(0.24, 4), (0.26, 3), (0.49, 3), (0.51, 2), (0.74, 2), (0.76, 1)]
)
def test_min_p_keeps_what_is_at_least_so_many_times_as_probable_as_the_best(min_p, kept):
    left = truncated(LOGITS[None] + 7.0, 0, 1.0, min_p)[0].isfinite()
    assert left.tolist() == [False] * (4 - kept) + [True] * kept


@pytest.mark.parametrize(("top_k", "top_p"), [(2, 1.0), (0, 0.6), (3, 0.8)])
def test_min_p_takes_from_what_the_others_leave(top_k, top_p):
    torch.manual_seed(0)
    logits = 2 * torch.randn(50, 7)
    both = truncated(logits, top_k, top_p, 0.3).isfinite()
    alone = truncated(logits, 0, 1.0, 0.3).isfinite()
    assert torch.equal(both, alone & truncated(logits, top_k, top_p).isfinite())
    assert both.any(dim=1).all()
