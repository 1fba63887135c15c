"""Bottlenecks whose posterior is no Gaussian: where they start, what they charge and give."""

import pytest
import torch

from tests.bottlenecks.examples import FEATURES, example

KINDS = ["laplace", "gamma", "beta"]
every = pytest.mark.parametrize("kind", KINDS)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


@every
def test_an_encoder_that_says_nothing_gives_the_prior(kind):
    bottleneck = example(kind)
    torch.nn.init.zeros_(bottleneck.project_in.weight)
    posterior = bottleneck.encode(torch.randn(2, *FEATURES))
    assert posterior.kl_per_number().abs().max() < 1e-5
    standard = bottleneck.family.standard(posterior.mean)
    torch.testing.assert_close(posterior.mean, standard.mean.expand_as(posterior.mean))
    variance = posterior.log_variance.exp()
    torch.testing.assert_close(variance, standard.variance.expand_as(variance))


@every
def test_what_is_charged_is_the_kl_of_what_is_stored(kind):
    bottleneck, features = example(kind), 2 * torch.randn(3, *FEATURES)
    result = bottleneck(features, stream())
    torch.testing.assert_close(result.kl, bottleneck.encode(features).kl_per_number())
    assert result.kl.shape == (3, 4, 2, 3) and (result.kl > 0).all()


@every
def test_kl_by_draws_on_request(kind):
    bottleneck, features = example(kind, kl_draws=3), torch.randn(1, *FEATURES)
    many = features.expand(4000, -1, -1, -1)
    with torch.no_grad():
        estimates = bottleneck(many, stream()).kl
    exact = bottleneck.encode(features).kl_per_number()[0]
    # Five standard errors of each of 24 numbers.
    error = 5 * estimates.std(dim=0) / 4000**0.5
    assert ((estimates.mean(dim=0) - exact).abs() < error).all()
    assert not torch.equal(estimates[0], estimates[1])


@every
def test_what_the_decoder_gets_is_of_unit_variance_at_the_start(kind):
    bottleneck = example(kind)
    torch.nn.init.zeros_(bottleneck.project_in.weight)
    bottleneck.project_out = torch.nn.Identity()
    numbers = bottleneck(torch.zeros(5000, *FEATURES), stream()).features
    assert numbers.mean().abs() < 5 / 120_000**0.5
    # The fourth moment of a Laplace is 6 (of a Gaussian 3), that of Gamma(2, .) is 6.
    assert (numbers.var() - 1).abs() < 5 * (5 / 120_000) ** 0.5


@pytest.mark.parametrize("size", [1e2, 1e4])
@every
def test_extreme_features_give_finite_losses_and_gradients(kind, size):
    bottleneck = example(kind)
    features = (size * torch.randn(4, *FEATURES, generator=stream(1))).requires_grad_()
    result = bottleneck(features, stream())
    (result.features.square().mean() + result.kl.sum()).backward()
    assert result.kl.isfinite().all() and result.features.isfinite().all()
    assert features.grad.isfinite().all()
    assert all(p.grad.isfinite().all() for p in bottleneck.parameters())


@every
def test_posteriors_are_float32_under_autocast(kind):
    bottleneck, features = example(kind), torch.randn(3, *FEATURES)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        result = bottleneck(features, stream())
        draw = result.posterior.rsample(stream())
    for numbers in (result.posterior.mean, result.posterior.log_variance, result.kl, draw):
        assert numbers.dtype == torch.float32


@pytest.mark.parametrize(
    ("kind", "reference"), [("laplace", ()), ("gamma", (2.0, 1.0)), ("beta", (1.0, 1.0))]
)
def test_the_spec_names_family_and_prior(kind, reference):
    spec = example(kind).spec
    assert (spec.posterior, spec.reference) == (kind, reference)
    assert spec.kind == "continuous" and not spec.deterministic
