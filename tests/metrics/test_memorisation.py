"""A planted copy is found, a good model is not accused, and chance is what it says."""

import pytest
import torch
from scipy.stats import binom

from stages.metrics.memorisation import RARE, Memorisation, judge_distances
from tests.metrics.examples import PROTOCOL

TRAIN, TEST, SAMPLES, DIM = 300, 200, 190, 6


def judged(seed: int, copies: float, noise: float = 0.0) -> Memorisation:
    """All three sets from one Gaussian; a share of the samples is copied from training."""
    random = torch.Generator().manual_seed(seed)
    train, test, samples = (
        torch.randn(count, DIM, generator=random) for count in (TRAIN, TEST, SAMPLES)
    )
    planted = round(copies * SAMPLES)
    shift = noise * torch.randn(planted, DIM, generator=random)
    samples[:planted] = train[:planted] + shift

    def nearest(queries: torch.Tensor) -> torch.Tensor:
        exact = "donot_use_mm_for_euclid_dist"
        return torch.cdist(queries, train, compute_mode=exact).amin(dim=1)

    return judge_distances(nearest(samples), nearest(test))


@pytest.mark.parametrize("noise", [0.0, 0.05])
@pytest.mark.parametrize("copies", [0.06, 0.3, 1.0])
def test_planted_copies_are_flagged(copies: float, noise: float) -> None:
    for seed in range(20):
        found = judged(seed, copies, noise)
        assert found.flagged and found.share >= copies - 0.01
        assert found.verdict.startswith("Copies suspected")


def test_a_good_model_is_accused_no_more_often_than_stated() -> None:
    trials = 500
    found = [judged(1000 + seed, 0.0) for seed in range(trials)]
    flags = sum(one.flagged for one in found)
    assert flags <= binom.ppf(0.9999, trials, RARE)
    # The number of near samples is what the law says on average: n k / (m + 1).
    mean = sum(one.nearer for one in found) / trials
    assert mean == pytest.approx(SAMPLES * 2 / (TEST + 1), abs=0.5)
    assert not found[0].flagged and found[0].verdict.startswith("No sign")


def test_chance_is_the_share_of_orders_that_bring_as_many() -> None:
    """Brute force over random orders of 7 samples and 5 test images; k = 1."""
    random = torch.Generator().manual_seed(0)
    trials = 20_000
    ranks = torch.rand(trials, 12, generator=random)
    nearer = (ranks[:, :7] < ranks[:, 7:].amin(dim=1, keepdim=True)).sum(dim=1)
    test = torch.arange(1.0, 6.0)
    for hits in range(8):
        samples = torch.where(torch.arange(7) < hits, 0.5, 9.0)
        found = judge_distances(samples, test)
        assert found.nearer == hits and found.threshold == 1.0
        share = (nearer >= hits).double().mean().item()
        assert found.chance == pytest.approx(share, abs=5 * (0.25 / trials) ** 0.5)


def test_copies_have_ratio_zero_and_fresh_images_one() -> None:
    test = torch.rand(101, generator=torch.Generator().manual_seed(2)) + 1
    assert judge_distances(test, test).ratio == pytest.approx(1)
    assert judge_distances(test * 0, test).ratio == 0
    # All test images recur in training: nothing is nearer, nothing is divided by 0.
    assert judge_distances(test, test * 0).ratio > 1


def test_the_median_of_an_even_number_is_between_the_two_in_the_middle() -> None:
    found = judge_distances(torch.tensor([1.0, 2.0, 4.0, 9.0]), torch.tensor([5.0, 0.5, 3.0, 2.0]))
    assert found.ratio == pytest.approx(3 / 2.5)


def test_figures_carry_the_interval_and_the_verdict() -> None:
    ratio, share = judged(0, 0.3).figures(PROTOCOL)
    assert (ratio.name, share.name, share.n) == (
        "neighbour_distance_ratio",
        "near_copy_share",
        SAMPLES,
    )
    assert share.interval is not None and share.interval[0] < share.value < share.interval[1]
    assert share.protocol.found["flagged"] is True
    assert share.protocol.details["closest_test_share"] == 0.01
