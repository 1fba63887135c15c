"""What KL costs: the equations, and where gradients are let through."""

from pathlib import Path

import pytest
import torch

import stages.objectives
from stages.core.errors import ParamsError
from tests.objectives.examples import ELBO, EXAMPLES, build

every_example = pytest.mark.parametrize("values", EXAMPLES, ids=str)
KL = torch.tensor([[0.1, 2.0, 0.3], [0.1, 4.0, 0.1]])


def after(steps):
    return torch.tensor(float(steps))


def test_every_member_has_an_example():
    files = Path(stages.objectives.__path__[0]).glob("*.py")
    assert {file.stem for file in files} - {"__init__", "base"} == {v["kind"] for v in EXAMPLES}


@every_example
def test_latents_free_of_charge_cost_nothing(values):
    assert build(values).cost(torch.zeros(4, 0), after(3)) == 0


@every_example
def test_the_cost_is_a_finite_number_with_finite_gradients(values):
    for step in (None, after(0), after(3), after(100)):
        kl = KL.clone().requires_grad_()
        cost = build(values).cost(kl, step)
        cost.backward()
        assert cost.shape == () and cost.isfinite() and kl.grad.isfinite().all()


@every_example
def test_the_price_is_the_slope_of_the_cost(values):
    for step in (None, after(0), after(3), after(100)):
        kl = KL.clone().requires_grad_()
        (slope,) = torch.autograd.grad(build(values).cost(kl, step), kl)
        price = build(values).price(KL, step)
        torch.testing.assert_close(price.expand_as(KL), len(KL) * slope)
    assert build(values).price(torch.zeros(4, 0), after(3)).shape == (0,)


def test_weight_one_is_the_evidence_lower_bound():
    torch.testing.assert_close(build(ELBO).cost(KL, after(0)), KL.sum(dim=1).mean())
    torch.testing.assert_close(build(ELBO, kl_weight=4.0).cost(KL, None), 4 * KL.sum(dim=1).mean())


def test_free_bits_are_a_floor_under_the_batch_mean_of_each_dimension():
    kl = KL.clone().requires_grad_()
    cost = build(ELBO, free_bits=0.15).cost(kl, None)
    cost.backward()
    assert cost.item() == pytest.approx(0.15 + 3.0 + 0.2)
    assert kl.grad[:, 0].abs().sum() == 0, "below the floor there is no gradient"
    assert (kl.grad[:, 1:] == 0.5).all()


def test_annealing_multiplies_the_weight():
    objective = build(ELBO, kl_weight=2.0, annealing="linear", annealing_steps=8)
    full = objective.cost(KL, None)
    for steps, share in ((0, 0.0), (2, 0.25), (8, 1.0), (50, 1.0)):
        torch.testing.assert_close(objective.cost(KL, after(steps)), share * full)


def test_the_capacity_is_led_along_a_line():
    objective = build(EXAMPLES[-1])
    nats = KL.sum(dim=1).mean().item()
    for steps, room in ((0, 0.0), (2, 0.8), (5, 2.0), (60, 2.0)):
        expected = 3.0 * abs(nats - room)
        assert objective.cost(KL, after(steps)).item() == pytest.approx(expected)
    assert objective.cost(KL, None).item() == pytest.approx(3.0 * abs(nats - 2.0))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"annealing": "cosine"},
            "annealing_steps must be .* above 0 otherwise; got 0 with cosine",
        ),
        ({"annealing_steps": 5}, "annealing_steps must be 0 with annealing none"),
        ({"cycles": 2}, "cycles must be 1 unless annealing is cyclical; got 2"),
        ({"kl_weight": -1.0}, "greater than or equal to 0"),
        ({"free_bits": 1e308}, "free_bits: Input should be less than or equal to 1000"),
    ],
)
def test_impossible_options_say_what_must_hold(changes, message):
    with pytest.raises(ParamsError, match=message):
        build(ELBO, **changes)
