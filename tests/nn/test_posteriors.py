"""Families of posteriors: moments, draws, densities, KL and gradients against closed forms."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from torch.distributions import Gumbel

from stages.nn.posteriors import (
    BETA_CONCENTRATIONS,
    GAMMA_CONCENTRATIONS,
    FactorizedPosterior,
    LaplaceFamily,
    bounded,
    family_of,
)

FAMILIES = {
    "gaussian": (),
    "laplace": (),
    "gamma": (2.0, 1.5),
    "beta": (1.0, 3.0),
}
# What scipy calls them, and some parameters from all over their range.
MEMBERS = [
    ("gaussian", scipy.stats.norm(0.7, 1.3)),
    ("laplace", scipy.stats.laplace(-0.4, 0.3)),
    ("gamma", scipy.stats.gamma(0.3, scale=2.0)),
    ("gamma", scipy.stats.gamma(2.5, scale=0.1)),
    ("gamma", scipy.stats.gamma(800.0, scale=0.01)),
    ("beta", scipy.stats.beta(0.6, 0.9)),
    ("beta", scipy.stats.beta(2.0, 7.0)),
    ("beta", scipy.stats.beta(900.0, 30.0)),
]
every_member = pytest.mark.parametrize(
    ("name", "member"), MEMBERS, ids=[f"{n}-{m.args}" for n, m in MEMBERS]
)
every_family = pytest.mark.parametrize("name", FAMILIES)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def family(name):
    return family_of(name, FAMILIES[name])


def posterior(name, member, copies=1, dtype=torch.float64):
    """`copies` images of one latent number distributed as `member`."""
    mean = torch.full((copies, 1, 1, 1), float(member.mean()), dtype=dtype)
    log_variance = torch.full_like(mean, math.log(member.var()))
    return FactorizedPosterior(mean, log_variance, family(name))


@every_member
def test_two_moments_settle_the_density(name, member):
    values = torch.from_numpy(member.ppf([0.02, 0.3, 0.5, 0.9])).view(4, 1, 1, 1)
    expected = torch.from_numpy(member.logpdf(values.numpy())).flatten()
    found = posterior(name, member, copies=4).log_prob(values)
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)


@every_member
def test_draws_are_of_the_distribution(name, member):
    draws = posterior(name, member, 20_000, torch.float32).rsample(stream()).flatten()
    # Kolmogorov's statistic exceeds this once in a million seeds.
    limit = math.sqrt(-0.5 * math.log(1e-6 / 2) / 20_000)
    assert scipy.stats.kstest(draws.numpy(), member.cdf).statistic < limit


@every_member
def test_the_kl_is_the_integral_it_stands_for(name, member):
    standard = {
        "gaussian": scipy.stats.norm(),
        "laplace": scipy.stats.laplace(),
        "gamma": scipy.stats.gamma(2.0, scale=1 / 1.5),
        "beta": scipy.stats.beta(1.0, 3.0),
    }[name]
    # Over quantiles: E_q[f(z)] is the integral of f(F^-1(u)), here by the midpoint rule.
    values = member.ppf((np.arange(20_000) + 0.5) / 20_000)
    expected = (member.logpdf(values) - standard.logpdf(values)).mean()
    closed = posterior(name, member).kl_per_number().item()
    assert closed == pytest.approx(expected, rel=1e-3)


@every_member
def test_the_kl_by_draws_agrees_with_the_closed_form(name, member):
    q = posterior(name, member, 20_000)
    estimates = q.kl_per_number(draws=1, generator=stream()).flatten()
    # Five standard errors: wrong once in two million seeds.
    error = 5 * estimates.std() / 20_000**0.5
    assert (estimates.mean() - q.kl_per_number().mean()).abs() < error


@every_family
def test_more_draws_of_the_kl_are_their_mean(name):
    q = posterior(name, MEMBERS[[n for n, _ in MEMBERS].index(name)][1], 3)
    one = stream()
    singles = [q.kl_per_number(1, one) for _ in range(4)]
    torch.testing.assert_close(q.kl_per_number(4, stream()), torch.stack(singles).mean(dim=0))


def test_a_pair_without_closed_form_needs_draws():
    class AgainstGumbel(LaplaceFamily):
        def standard(self, like):
            return Gumbel(like.new_zeros(()), like.new_ones(()), validate_args=False)

    mean = torch.full((20_000, 1, 1, 1), 0.5)
    b = 0.25
    log_variance = torch.full_like(mean, math.log(2 * b * b))
    q = FactorizedPosterior(mean, log_variance, AgainstGumbel())
    with pytest.raises(NotImplementedError):
        q.kl_per_number()
    # E[-log p(z)] of a Gumbel is E[z] + E[exp(-z)], for a Laplace m + exp(-m) / (1 - b^2).
    expected = -1 - math.log(2 * b) + 0.5 + math.exp(-0.5) / (1 - b * b)
    estimates = q.kl_per_number(1, stream())
    # Five standard errors.
    error = 5 * estimates.std().item() / 20_000**0.5
    assert estimates.mean().item() == pytest.approx(expected, abs=error)


@every_family
def test_the_kl_is_zero_at_the_standard_prior_only(name):
    standard = family(name).standard(torch.zeros((), dtype=torch.float64))
    mean, log_variance = standard.mean, standard.variance.log()

    def kl(factor, shift):
        moments = (factor * mean + (name in ("gaussian", "laplace")) * (factor - 1)).view(
            1, 1, 1, 1
        )
        q = FactorizedPosterior(moments, (log_variance + shift).view(1, 1, 1, 1), family(name))
        return q.kl_per_number().item()

    assert kl(1.0, 0.0) == pytest.approx(0, abs=1e-12)
    assert min(kl(1.1, 0.0), kl(0.9, 0.0), kl(1.0, 0.1), kl(1.0, -0.1)) > 1e-4


def expectation(name, distribution):
    """E[f(z)] in closed form, for the f below."""
    if name == "gaussian":
        return torch.exp(-distribution.variance / 2) * torch.cos(distribution.mean)
    if name == "laplace":
        return torch.cos(distribution.mean) / (1 + distribution.scale.square())
    if name == "gamma":
        return torch.digamma(distribution.concentration) - distribution.rate.log()
    one, zero = distribution.concentration1, distribution.concentration0
    return torch.digamma(one) - torch.digamma(one + zero)


@every_member
def test_gradients_are_those_of_the_expectation(name, member):
    f = torch.cos if name in ("gaussian", "laplace") else torch.log
    q, copies = posterior(name, member, 40_000), 40_000
    moments = [q.mean.requires_grad_(), q.log_variance.requires_grad_()]
    f(q.rsample(stream())).sum().backward()
    for index, moment in enumerate(moments):
        step = 1e-4 * max(moment[0].abs().item(), 1e-2)
        ends = []
        for sign in (1, -1):
            at = [m.detach()[:1].clone() for m in moments]
            at[index] += sign * step
            ends.append(expectation(name, q.family.of_moments(*at)).item())
        difference = (ends[0] - ends[1]) / (2 * step)
        # Every copy gives one estimate; five standard errors, and torch's own error in the
        # derivative of a gamma draw, a few in ten thousand.
        error = 5 * moment.grad.std().item() / copies**0.5 + 5e-4 * abs(difference)
        assert moment.grad.mean().item() == pytest.approx(difference, abs=error)


@every_family
def test_draws_come_from_the_stream_and_from_nowhere_else(name):
    q = posterior(name, MEMBERS[[n for n, _ in MEMBERS].index(name)][1], 5)
    before = torch.get_rng_state()
    first, second, other = (q.rsample(stream(seed)) for seed in (1, 1, 2))
    assert torch.equal(first, second) and not (first == other).any()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("scale", [0.03, 1.0, 40.0])
@every_member
def test_moments_rounded_to_float16_are_moments_still(name, member, scale):
    exact = posterior(name, member, copies=7)
    mean = (scale * exact.mean).half().double() / scale
    log_variance = (exact.log_variance + 2 * math.log(scale)).half().double()
    q = FactorizedPosterior(mean, log_variance - 2 * math.log(scale), exact.family)
    draws = q.rsample(stream())
    for numbers in (draws, q.log_prob(draws), q.standard_log_prob(draws), q.kl_per_number()):
        assert numbers.isfinite().all()


@pytest.mark.parametrize("mean", [0.0, 6e-5, 0.9995, 1.0])
@pytest.mark.parametrize("log_variance", [-30.0, 0.0, 20.0])
@pytest.mark.parametrize("name", ["gamma", "beta"])
def test_moments_that_no_member_has_are_brought_into_the_range(name, mean, log_variance):
    moments = torch.tensor([mean, log_variance]).view(2, 1, 1, 1, 1).expand(2, 9, 1, 1, 1).clone()
    moments.requires_grad_()
    q = FactorizedPosterior(*moments, family(name))
    draws = q.rsample(stream())
    loss = draws.sum() + q.kl_per_number().sum() + q.log_prob(draws.detach()).sum()
    loss.backward()
    assert loss.isfinite() and moments.grad.isfinite().all()
    low, high = GAMMA_CONCENTRATIONS if name == "gamma" else BETA_CONCENTRATIONS
    found = q.distribution
    concentrations = (
        [found.concentration]
        if name == "gamma"
        else [
            found.concentration1,
            found.concentration0,
        ]
    )
    for concentration in concentrations:
        assert (concentration >= 0.999 * low).all() and (concentration <= 1.001 * high).all()


@pytest.mark.parametrize("name", ["gamma", "beta"])
def test_density_is_zero_outside_the_support_and_finite_on_its_rounded_edge(name):
    beyond = torch.tensor([-0.1] if name == "gamma" else [-0.1, 1.1])
    edges = torch.tensor([0.0] if name == "gamma" else [0.0, 1.0, 1.0 + 2**-23])
    distribution = family(name).standard(beyond)
    assert (family(name).log_prob(distribution, beyond) == -math.inf).all()
    assert family(name).log_prob(distribution, edges).isfinite().all()


@every_family
def test_numbers_of_the_standard_prior_are_its_quantiles(name):
    uniforms = torch.tensor([[0.001, 0.2, 0.5], [0.7, 0.95, 0.9999]])
    standard = family(name).standard(torch.zeros((), dtype=torch.float64))
    frozen = {
        "gaussian": scipy.stats.norm(),
        "laplace": scipy.stats.laplace(),
        "gamma": scipy.stats.gamma(2.0, scale=1 / 1.5),
        "beta": scipy.stats.beta(1.0, 3.0),
    }[name]
    assert frozen.var() == pytest.approx(standard.variance.item())
    found = family(name).standard_from_uniform(uniforms, 1.0)
    expected = torch.from_numpy(frozen.ppf(uniforms.double().numpy())).float()
    torch.testing.assert_close(found, expected, rtol=2e-4, atol=1e-6)


@every_family
def test_temperature_multiplies_the_standard_deviation(name):
    uniforms = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    one = family(name).standard_from_uniform(uniforms, 1.0)
    half = family(name).standard_from_uniform(uniforms, 0.5)
    assert half.mean().item() == pytest.approx(one.mean().item(), rel=1e-3, abs=1e-9)
    # The midpoint rule cuts the far tails: a few in ten thousand of a Laplace's variance.
    assert (half.std() / one.std()).item() == pytest.approx(0.5, rel=2e-3)


@every_family
def test_standardised_numbers_of_the_prior_have_unit_variance(name):
    uniforms = (torch.arange(100_000, dtype=torch.float64) + 0.5) / 100_000
    numbers = family(name).standardised(family(name).standard_from_uniform(uniforms, 1.0))
    assert numbers.mean().item() == pytest.approx(0, abs=1e-3)
    assert numbers.std().item() == pytest.approx(1, rel=2e-3)


def test_bounded_starts_where_it_should_with_slope_one():
    raw = torch.tensor([0.0, 40.0, -40.0, 1e6, -1e6], dtype=torch.float64, requires_grad=True)
    numbers = bounded(raw, -1.5, 6.0, 0.5)
    assert numbers[0].item() == pytest.approx(0.5)
    assert (numbers >= -1.5).all() and (numbers <= 6.0).all()
    assert numbers[3].item() == pytest.approx(6.0) and numbers[4].item() == pytest.approx(-1.5)
    numbers.sum().backward()
    assert raw.grad[0].item() == pytest.approx(1.0) and raw.grad.isfinite().all()
    assert (bounded(torch.linspace(-30, 30, 61), -1.5, 6.0, 0.5).diff() >= 0).all()
