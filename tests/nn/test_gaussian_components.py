"""Weighted Gaussians and their statistics, against closed forms."""

import pytest
import torch
from torch.distributions import Independent, MultivariateNormal, Normal

from stages.core.errors import ParamsError
from stages.nn.gaussian_components import GaussianComponents

GROUPS, COMPONENTS, DIM = 2, 3, 4
every_form = pytest.mark.parametrize("full", [True, False])


def components(full):
    torch.manual_seed(0)
    parts = GaussianComponents(GROUPS, COMPONENTS, DIM, full=full)
    parts.log_weights.copy_(torch.randn(GROUPS, COMPONENTS).log_softmax(1))
    parts.means.normal_()
    form = parts.factors
    form.mul_(0.5 + torch.rand(GROUPS, COMPONENTS, *[1] * (form.ndim - 2)))
    if full:
        form.add_(0.3 * torch.randn_like(form).tril(-1))
    return parts


@every_form
def test_densities_equal_torch_distributions(full):
    parts, vectors = components(full), torch.randn(5, DIM)
    means, factors = parts.means[1], parts.factors[1]
    each = (
        MultivariateNormal(means, scale_tril=factors)
        if full
        else Independent(Normal(means, factors), 1)
    )
    expected = parts.log_weights[1] + each.log_prob(vectors.unsqueeze(1))
    torch.testing.assert_close(parts.joint(vectors, 1), expected)


@every_form
def test_draws_have_the_moments_of_their_component(full):
    parts, count = components(full), 40_000
    chosen, group = torch.full((count,), 2), torch.ones(count, dtype=torch.int64)
    drawn = parts.from_normal(chosen, torch.randn(count, DIM), group)
    factor = parts.factors[1, 2] if full else parts.factors[1, 2].diag()
    torch.testing.assert_close(drawn.mean(0), parts.means[1, 2], atol=0.04, rtol=0)
    torch.testing.assert_close(drawn.T.cov(), factor @ factor.T, atol=0.06, rtol=0)


@every_form
def test_hard_shares_give_the_moments_of_each_share_whatever_the_pieces(full):
    parts, vectors = components(full), torch.randn(60, DIM)
    shares = torch.nn.functional.one_hot(torch.arange(60) % 3, 3).float()
    statistics = parts.statistics()
    for start in range(0, 60, 25):
        statistics.add(vectors[start : start + 25], shares[start : start + 25])
    parts.update(0, statistics, floor=0.1)
    for index in range(3):
        own = vectors[index::3]
        torch.testing.assert_close(parts.means[0, index], own.mean(0))
        covariance = own.T.cov(correction=0) + 0.1 * torch.eye(DIM)
        factor = parts.factors[0, index]
        found = factor @ factor.T if full else factor.square().diag()
        expected = covariance if full else covariance.diagonal().diag()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.log_weights[0].exp(), torch.full((3,), 1 / 3))


def test_a_floor_below_rounding_is_told_to_be_raised():
    parts, vectors = components(full=True), torch.randn(2, DIM)
    statistics = parts.statistics()
    statistics.add(vectors, torch.full((2, COMPONENTS), 1 / COMPONENTS))
    with pytest.raises(ParamsError, match=r"prior\.covariance_floor: .* got 1e-40.*; raise it"):
        parts.update(0, statistics, floor=1e-40)
    parts.update(0, statistics, floor=1e-3)
    assert parts.joint(vectors, 0).isfinite().all()


@every_form
def test_a_component_without_vectors_keeps_its_form_and_loses_its_weight(full):
    parts, vectors = components(full), torch.randn(60, DIM)
    before = parts.means[0, 2].clone(), parts.factors[0, 2].clone()
    statistics = parts.statistics()
    statistics.add(vectors, torch.tensor([0.5, 0.5, 0.0]).expand(60, 3))
    parts.update(0, statistics, floor=0.1)
    assert torch.equal(parts.means[0, 2], before[0])
    assert torch.equal(parts.factors[0, 2], before[1])
    assert parts.log_weights[0, 2] < -10 and parts.joint(vectors, 0).isfinite().all()
