import pytest
import torch
from scipy.stats import binom

from stages.metrics.base import Observation
from stages.metrics.intervals import exact_interval, mean_interval
from stages.metrics.reconstruction import Reconstruction
from tests.metrics.examples import PROTOCOL


@pytest.mark.parametrize(("hits", "n"), [(0, 9), (3, 11), (11, 11)])
def test_the_ends_of_an_exact_interval_are_where_the_tails_say(hits: int, n: int) -> None:
    low, high = exact_interval(hits, n)
    assert low == 0 if hits == 0 else binom.sf(hits - 1, n, low) == pytest.approx(0.025)
    assert high == 1 if hits == n else binom.cdf(hits, n, high) == pytest.approx(0.025)


def test_of_a_mean_it_is_as_wide_as_the_spread_of_its_numbers_says() -> None:
    numbers = torch.tensor([1.0, 2.0, 4.0, 9.0], dtype=torch.float64)
    found = mean_interval(numbers.sum().item(), numbers.square().sum().item(), 4)
    half = 1.959964 * numbers.std().item() / 2
    assert found == pytest.approx((4 - half, 4 + half), rel=1e-6)
    assert mean_interval(6.0, 12.0, 3) == (2.0, 2.0)
    assert mean_interval(6.0, 36.0, 1) is None


def test_reconstructions_hold_their_value_whatever_the_batches() -> None:
    random = torch.Generator().manual_seed(0)
    images, others = (
        torch.randint(0, 256, (5, 1, 12, 13), generator=random, dtype=torch.uint8) for _ in "xy"
    )
    nothing = torch.zeros(5)
    spans = []
    for cuts in ([5], [2, 3]):
        metric = Reconstruction()
        parts = (one.split(cuts) for one in (images, others, nothing, nothing))
        for part in zip(*parts, strict=True):
            metric.update(Observation(*part))
        spans.append([figure.interval for figure in metric.figures(PROTOCOL)])
        for figure in metric.figures(PROTOCOL):
            assert figure.interval is not None
            assert figure.interval[0] < figure.value < figure.interval[1]
            assert "95%" in figure.protocol.details["interval"]
    assert spans[0] == [pytest.approx(span) for span in spans[1]]
    errors = ((images.double() - others.double()) / 255).square().mean(dim=(1, 2, 3))
    mean = errors.mean().item()
    half = 1.959964 * errors.std().item() / 5**0.5
    assert spans[0][0] == pytest.approx((mean - half, mean + half), rel=1e-5)
