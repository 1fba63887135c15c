"""Ramps at their ends, in the middle, and over cycles."""

import pytest
import torch

from stages.nn.schedules import ramp


def at(step, shape, steps=20, cycles=1):
    return ramp(torch.tensor(float(step)), steps, shape, cycles).item()


@pytest.mark.parametrize("shape", ["linear", "cosine", "cyclical"])
def test_ramps_rise_from_zero_to_one_and_stay(shape):
    assert at(0, shape) == 0
    assert at(20, shape) == 1 and at(1000, shape) == 1
    assert ramp(None, 20, shape) == 1
    assert at(0, shape, steps=0) == 1, "a ramp without length is over from the start"


def test_known_values():
    assert at(5, "linear") == pytest.approx(0.25)
    assert at(5, "cosine") == pytest.approx((1 - 2**-0.5) / 2)
    assert at(10, "cosine") == pytest.approx(0.5)


def test_cycles_rise_over_their_first_half_and_hold_over_their_second():
    values = [at(step, "cyclical", cycles=2) for step in range(20)]
    assert values[:6] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1])
    assert values[5:10] == pytest.approx([1] * 5)
    assert values[10:] == pytest.approx(values[:10])
