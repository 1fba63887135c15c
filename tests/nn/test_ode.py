"""Runge-Kutta steps: their order, their way back, their price."""

import math

import pytest
import torch

from stages.nn.ode import EVALUATIONS, integrated

ORDERS = {"euler": 1, "midpoint": 2, "heun": 2, "rk4": 4}


def growth(state, time):
    """dx/dt = cos(t) x: x(t) = x(0) exp(sin t)."""
    return math.cos(time) * state


@pytest.mark.parametrize("solver", ORDERS)
def test_the_error_falls_with_the_order_of_the_method(solver):
    start = torch.tensor([[1.0, -2.0, 0.5]], dtype=torch.float64)
    exact = start * math.exp(math.sin(1.2) - math.sin(0.2))
    errors = [
        (integrated(growth, start, 0.2, 1.2, steps, solver) - exact).abs().max().item()
        for steps in (100, 200)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(ORDERS[solver], abs=0.15)


def test_time_runs_back_as_well():
    start = torch.tensor([1.5], dtype=torch.float64)
    there = integrated(growth, start, 0.0, 1.0, 20, "rk4")
    torch.testing.assert_close(
        integrated(growth, there, 1.0, 0.0, 20, "rk4"), start, atol=1e-6, rtol=0
    )


@pytest.mark.parametrize("solver", ORDERS)
def test_evaluations_are_counted_and_stay_inside_the_interval(solver):
    seen = []

    def field(state, time):
        seen.append(time)
        return growth(state, time)

    integrated(field, torch.ones(2), 1.0, 0.0, 5, solver)
    assert len(seen) == 5 * EVALUATIONS[solver]
    assert max(seen) == 1.0 and min(seen) > -1e-9
