"""Priors that learn nothing, against closed forms."""

import itertools
import math

import pytest
import torch
from torch.distributions import Normal

from stages.bottlenecks.base import LatentSpec
from stages.core.errors import ParamsError
from stages.heads.base import SamplerSettings
from stages.heads.categorical import CategoricalOptions
from stages.priors.standard_normal import StandardNormalOptions, StandardNormalPrior
from stages.priors.uniform import UniformOptions, UniformPrior

HEAD = CategoricalOptions(kind="categorical", tied=False)
SCALE = 2.5
REFUSED = [{"temperature": 0.9}, {"guidance": 2.0}, {"top_k": 5}, {"top_p": 0.9}, {"min_p": 0.1}]


def uniform():
    spec = LatentSpec("codes", 2, 3, num_codes=3)
    return UniformPrior(UniformOptions(kind="uniform"), HEAD, spec, num_classes=4)


def standard_normal():
    spec = LatentSpec("continuous", 2, 3, channels=4, scale=SCALE)
    return StandardNormalPrior(
        StandardNormalOptions(kind="standard_normal"), HEAD, spec, num_classes=4
    )


def settings(**changes):
    return SamplerSettings(**changes)


def test_uniform_probabilities_of_all_grids_sum_to_one():
    grids = torch.tensor(list(itertools.product(range(3), repeat=6))).view(-1, 2, 3)
    assert uniform().log_prob(grids, None).double().exp().sum().item() == pytest.approx(1, rel=1e-5)
    assert uniform().loss(grids, None).item() == pytest.approx(math.log(3))


def test_uniform_codes_cut_the_interval_into_equal_parts():
    uniforms = torch.tensor([2.0**-25, 0.33, 0.34, 0.66, 0.67, 1 - 2.0**-24]).view(1, 6, 1)
    assert uniform().sample(None, uniforms, settings()).tolist() == [[[0, 0, 1], [1, 2, 2]]]


def test_standard_normal_is_standard_in_the_units_of_the_bottleneck():
    own = torch.randn(5, 4, 2, 3)
    stored_density = standard_normal().log_prob(SCALE * own, None)
    own_density = Normal(0.0, 1.0).log_prob(own).sum(dim=(1, 2, 3))
    # Densities of one variable in two units differ by the Jacobian, scale^-24.
    torch.testing.assert_close(stored_density, own_density - 24 * math.log(SCALE))
    reference = Normal(0.0, SCALE).log_prob(SCALE * own).sum(dim=(1, 2, 3))
    torch.testing.assert_close(stored_density, reference)


def test_standard_normal_samples_are_scaled_quantiles():
    prior = standard_normal()
    uniforms = torch.rand(5, *prior.noise_shape)
    latents = prior.sample(None, uniforms, settings(variance_temperature=0.5))
    expected = Normal(0.0, 0.5 * SCALE).icdf(uniforms)
    torch.testing.assert_close(latents[3, 2, 1, 0], expected[3, 3, 2])
    torch.testing.assert_close(latents.flatten(2).mT, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("prior", [uniform(), standard_normal()])
@pytest.mark.parametrize("change", REFUSED)
def test_settings_without_a_meaning_are_refused(prior, change):
    [name] = change
    with pytest.raises(ParamsError, match=rf"sampling\.{name}: must be"):
        prior.sample(None, torch.rand(2, *prior.noise_shape), settings(**change))
