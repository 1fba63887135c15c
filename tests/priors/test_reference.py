"""The prior of the posteriors' family, in the units of what is stored."""

import math

import pytest
import torch
from torch.distributions import Beta, Gamma, Laplace, Normal

from stages.bottlenecks.base import LatentSpec
from stages.core.errors import ParamsError
from stages.heads.base import SamplerSettings
from stages.heads.categorical import CategoricalOptions
from stages.priors.reference import ReferenceOptions, ReferencePrior
from stages.priors.standard_normal import StandardNormalOptions, StandardNormalPrior

HEAD = CategoricalOptions(kind="categorical", tied=False)
SCALE = 2.5
REFUSED = [{"temperature": 0.9}, {"guidance": 2.0}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}]
FAMILIES = {
    "gaussian": ((), Normal(0.0, 1.0)),
    "laplace": ((), Laplace(0.0, 1.0)),
    "gamma": ((2.0, 0.5), Gamma(2.0, 0.5)),
    "beta": ((1.0, 1.0), Beta(1.0, 1.0)),
}
every_family = pytest.mark.parametrize("name", FAMILIES)


def spec(name):
    return LatentSpec(
        "continuous", 2, 3, channels=4, scale=SCALE, posterior=name, reference=FAMILIES[name][0]
    )


def prior(name):
    return ReferencePrior(ReferenceOptions(kind="reference"), HEAD, spec(name), num_classes=4)


def settings(**changes):
    return SamplerSettings(**changes)


@every_family
def test_the_density_is_that_of_the_family_with_the_jacobian_of_the_scale(name):
    expected = FAMILIES[name][1]
    own = expected.sample((5, 4, 2, 3))
    found = prior(name).log_prob(SCALE * own, None)
    reference = expected.log_prob(own).sum(dim=(1, 2, 3)) - 24 * math.log(SCALE)
    torch.testing.assert_close(found, reference, rtol=1e-4, atol=1e-4)
    per_token = -found.mean() / 6
    torch.testing.assert_close(prior(name).loss(SCALE * own, None), per_token)


@every_family
def test_samples_are_of_the_family_and_their_own(name):
    uniforms = torch.rand(3000, 6, 4, generator=torch.Generator().manual_seed(1))
    latents = prior(name).sample(None, uniforms, settings())
    assert prior(name).log_prob(latents, None).isfinite().all()
    own = (latents / SCALE).double().flatten()
    expected = FAMILIES[name][1]
    # Five standard errors of mean and variance over 72,000 numbers; no kurtosis exceeds 6.
    error = 5 / own.numel() ** 0.5
    assert abs(own.mean() - expected.mean) < error * expected.stddev
    assert abs(own.var() / expected.variance - 1) < error * 5**0.5
    moved = uniforms.clone()
    moved[1, 5, 2] = 0.987
    changed = (prior(name).sample(None, moved, settings()) != latents).nonzero()
    assert changed.tolist() == [[1, 2, 1, 2]]


def test_of_gaussians_it_is_standard_normal():
    other = StandardNormalPrior(
        StandardNormalOptions(kind="standard_normal"), HEAD, spec("gaussian"), num_classes=4
    )
    uniforms = torch.rand(5, 6, 4)
    cool = settings(variance_temperature=0.7)
    latents = prior("gaussian").sample(None, uniforms, cool)
    torch.testing.assert_close(latents, other.sample(None, uniforms, cool))
    torch.testing.assert_close(
        prior("gaussian").log_prob(latents, None), other.log_prob(latents, None)
    )


@pytest.mark.parametrize("name", ["laplace", "gamma", "beta"])
def test_standard_normal_refuses_other_families(name):
    with pytest.raises(ParamsError, match=f"gaussian posteriors.*{name}.*prior.kind: reference"):
        StandardNormalPrior(
            StandardNormalOptions(kind="standard_normal"), HEAD, spec(name), num_classes=4
        )


@pytest.mark.parametrize("change", REFUSED)
def test_settings_without_a_meaning_are_refused(change):
    [name] = change
    with pytest.raises(ParamsError, match=rf"sampling\.{name}: must be"):
        prior("laplace").sample(None, torch.rand(2, 6, 4), settings(**change))
