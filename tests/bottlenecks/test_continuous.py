"""The Gaussian's KL against Monte Carlo, torch.distributions and its own definition."""

import torch
from torch.distributions import Normal, kl_divergence

from stages.nn.distributions import DiagonalGaussian
from tests.bottlenecks.examples import FEATURES, example


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def some_posterior(batch=2):
    mean = torch.randn(batch, 4, 2, 3, generator=stream())
    return DiagonalGaussian(mean, torch.randn(batch, 4, 2, 3, generator=stream(1)))


def test_kl_agrees_with_torch_distributions():
    q = some_posterior()
    for prior_std in (1.0, 1.7):
        expected = kl_divergence(Normal(q.mean, q.std), Normal(0.0, prior_std))
        torch.testing.assert_close(q.kl_per_number(prior_std), expected)


def test_kl_agrees_with_monte_carlo():
    q = some_posterior(batch=1)
    many = DiagonalGaussian(
        q.mean.expand(40_000, -1, -1, -1), q.log_variance.expand(40_000, -1, -1, -1)
    )
    draws = many.rsample(stream(2))
    standard = DiagonalGaussian(torch.zeros_like(draws), torch.zeros_like(draws))
    log_ratios = many.log_prob(draws) - standard.log_prob(draws)
    # Five standard errors: wrong once in two million seeds.
    error = 5 * log_ratios.std() / 40_000**0.5
    assert (log_ratios.mean() - q.kl_per_number().sum()).abs() < error


def test_kl_is_zero_only_for_the_prior():
    at_prior = DiagonalGaussian(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))
    assert at_prior.kl_per_number().abs().max() == 0
    for mean, log_variance in ((0.1, 0.0), (0.0, 0.1), (0.0, -0.1)):
        other = DiagonalGaussian(
            torch.full((1, 2, 3, 4), mean), torch.full((1, 2, 3, 4), log_variance)
        )
        assert (other.kl_per_number() > 0).all()


def test_gradients_of_the_kl():
    mean = torch.randn(1, 2, 3, 4, requires_grad=True)
    log_variance = torch.randn(1, 2, 3, 4, requires_grad=True)
    DiagonalGaussian(mean, log_variance).kl_per_number().sum().backward()
    torch.testing.assert_close(mean.grad, mean.detach())
    torch.testing.assert_close(log_variance.grad, 0.5 * (log_variance.detach().exp() - 1))


def test_what_is_charged_is_the_posteriors_kl():
    bottleneck, features = example("gaussian"), torch.randn(3, *FEATURES)
    expected = bottleneck.encode(features).kl_per_number()
    torch.testing.assert_close(bottleneck(features, stream()).kl, expected)


def test_the_density_of_the_standard_prior():
    latents = torch.randn(2, 4, 2, 3)
    expected = Normal(0.0, 1.0).log_prob(latents).sum(dim=(1, 2, 3))
    torch.testing.assert_close(some_posterior().standard_log_prob(latents), expected)


def test_draws_have_the_posteriors_moments():
    bottleneck, features = example("gaussian"), torch.randn(1, *FEATURES)
    bottleneck.project_out = torch.nn.Identity()
    q = bottleneck.encode(features)
    many = features.expand(20_000, -1, -1, -1)
    standardised = (bottleneck(many, stream()).features - q.mean) / q.std
    # Means of 20 000 unit draws: standard error 0.007.
    assert standardised.mean(dim=0).abs().max() < 5 * 0.0071
    assert (standardised.std(dim=0) - 1).abs().max() < 5 * 0.005


def test_extreme_features_give_finite_losses():
    bottleneck = example("gaussian")
    result = bottleneck(torch.full((2, *FEATURES), 1e4), stream())
    assert result.kl.isfinite().all() and result.features.isfinite().all()


def test_identity_stores_points_and_charges_nothing():
    bottleneck, features = example("identity"), torch.randn(2, *FEATURES)
    result = bottleneck(features)
    assert bottleneck.spec.deterministic
    assert result.kl is None and result.auxiliary == 0
    torch.testing.assert_close(result.features, bottleneck.decode(bottleneck.encode(features).mean))
