"""Codes by chance against enumeration, torch.distributions, and the limits of the temperature."""

import math

import pytest
import torch
from torch.distributions import Categorical, kl_divergence

from stages.core.shapes import FeatureShape
from stages.nn.categorical import (
    CodeLogits,
    draw_codes,
    gumbel_noise,
    kl_to_uniform,
    log_prob,
    relaxed_codes,
    straight_through_codes,
)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def some_logits(*cells, codes=5):
    return 2 * torch.randn(*cells, codes, generator=stream(7))


def test_kl_to_uniform_is_the_sum_over_all_codes():
    logits = some_logits(2, 3)
    kl = kl_to_uniform(logits)
    assert kl.shape == (2, 3)
    for cell in ((0, 0), (1, 2)):
        weights = logits[cell].double().exp()
        q = (weights / weights.sum()).tolist()
        assert kl[cell].item() == pytest.approx(sum(p * math.log(p * 5) for p in q), rel=1e-5)
    uniform = Categorical(logits=torch.zeros_like(logits))
    torch.testing.assert_close(kl, kl_divergence(Categorical(logits=logits), uniform))


def test_kl_reaches_from_zero_to_log_k():
    assert kl_to_uniform(torch.full((3, 7), 11.0)).abs().max() < 1e-6
    certain = torch.tensor([[0.0, 200.0, 0.0, 0.0]])
    assert kl_to_uniform(certain).item() == pytest.approx(math.log(4))


def test_log_prob_agrees_with_torch_distributions():
    logits, codes = some_logits(2, 3), torch.randint(5, (2, 3), generator=stream())
    torch.testing.assert_close(log_prob(logits, codes), Categorical(logits=logits).log_prob(codes))


def test_noise_has_the_moments_of_gumbels_distribution():
    noise = gumbel_noise(torch.zeros(200, 500), stream()).double()
    # Of 10^5 numbers: 5 standard errors; the variance's from the kurtosis of 5.4.
    variance = math.pi**2 / 6
    assert abs(noise.mean().item() - 0.577216) < 5 * math.sqrt(variance / 1e5)
    assert abs(noise.var().item() - variance) < 5 * variance * math.sqrt(4.4 / 1e5)


def test_an_extreme_of_the_generator_gives_finite_noise(monkeypatch):
    monkeypatch.setattr(torch, "rand", lambda shape, **_: torch.zeros(shape))
    assert gumbel_noise(torch.zeros(2, 3), None).isfinite().all()


@pytest.mark.parametrize("how", ["drawn", "largest of the relaxed"])
def test_codes_come_as_often_as_their_probability(how):
    logits, draws = some_logits(3), 40_000
    many = logits.expand(draws, 3, 5)
    if how == "drawn":
        codes = draw_codes(many, stream())
    else:
        codes = relaxed_codes(many, 0.7, stream()).argmax(dim=-1)
    q = torch.softmax(logits, dim=-1)
    shares = torch.nn.functional.one_hot(codes, 5).float().mean(dim=0)
    # 15 comparisons at five standard errors.
    assert ((shares - q).abs() < 5 * (q * (1 - q) / draws).sqrt()).all()


def test_the_relaxation_tends_to_the_code_and_to_the_middle():
    logits = some_logits(4, 3)
    codes = draw_codes(logits, stream())
    cold = relaxed_codes(logits, 1e-4, stream())
    torch.testing.assert_close(cold, torch.nn.functional.one_hot(codes, 5).float())
    hot = relaxed_codes(logits, 1e4, stream())
    torch.testing.assert_close(hot, torch.full_like(hot, 0.2), atol=1e-3, rtol=0)


def test_straight_through_is_a_code_with_the_relaxed_ones_gradient():
    logits, cost = some_logits(2, 3).requires_grad_(), torch.randn(2, 3, 5, generator=stream(1))
    relaxed = relaxed_codes(logits, 0.8, stream())
    hard = straight_through_codes(relaxed)
    assert torch.equal(hard, torch.nn.functional.one_hot(relaxed.argmax(-1), 5).float())
    [through] = torch.autograd.grad((hard * cost).sum(), logits, retain_graph=True)
    [soft] = torch.autograd.grad((relaxed * cost).sum(), logits)
    torch.testing.assert_close(through, soft)


def test_a_start_from_data_levels_the_codes():
    layer = CodeLogits(FeatureShape(6, 2, 3), 9, 1.5)
    features = 4 + 3 * torch.randn(50, 6, 2, 3, generator=stream())
    layer.start_from_data(features)
    logits = layer(features)
    assert logits.shape == (50, 2, 3, 9)
    flat = logits.flatten(0, 2)
    torch.testing.assert_close(flat.mean(dim=0), torch.zeros(9), atol=1e-4, rtol=0)
    torch.testing.assert_close(flat.std(dim=0, correction=0), torch.full((9,), 1.5))


def test_features_that_never_vary_are_survived():
    layer = CodeLogits(FeatureShape(6, 2, 3), 9, 1.5)
    layer.start_from_data(torch.ones(5, 6, 2, 3))
    assert all(p.isfinite().all() for p in layer.parameters())
