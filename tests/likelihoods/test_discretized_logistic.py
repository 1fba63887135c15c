"""A true probability: the 256 intensities of every number sum to one."""

import pytest
import torch

from stages.core.intensities import from_pixels
from stages.core.sections import load_member, validate
from stages.core.shapes import ImageShape
from stages.likelihoods.base import Likelihood, LikelihoodOptions

EVERY_INTENSITY = from_pixels(torch.arange(256).view(256, 1, 1, 1).to(torch.uint8))


def single_number(num_mixtures):
    """The likelihood of an image of one number."""
    values = {"kind": "discretized_logistic", "num_mixtures": num_mixtures}
    options = validate(LikelihoodOptions.of_kind("discretized_logistic"), values, source="test")
    return load_member(Likelihood, "discretized_logistic")(options, ImageShape(1, 1, 1))


def probabilities(likelihood, parameters):
    return likelihood.log_prob(EVERY_INTENSITY, parameters.expand(256, -1, 1, 1)).double().exp()


@pytest.mark.parametrize("num_mixtures", [1, 3])
@pytest.mark.parametrize("size", [0.1, 1.0, 5.0, 20.0])
def test_probabilities_sum_to_one(num_mixtures, size):
    likelihood = single_number(num_mixtures)
    for seed in range(10):
        stream = torch.Generator().manual_seed(seed)
        parameters = size * torch.randn(1, likelihood.num_parameters, 1, 1, generator=stream)
        assert probabilities(likelihood, parameters).sum().item() == pytest.approx(1, abs=2e-4)


@pytest.mark.parametrize("mean", [-3.0, -1.0, -0.3, 0.0, 0.9, 1.0, 2.0])
@pytest.mark.parametrize("log_scale", [-9.0, -4.0, -1.0, 1.0, 6.0])
def test_each_bin_is_the_difference_of_two_logistic_functions(mean, log_scale):
    likelihood = single_number(1)
    found = probabilities(likelihood, torch.tensor([0.0, mean, log_scale]).view(1, 3, 1, 1))
    # Its one component is centred on 0 at the start; scales stay within exp(-7) and exp(4).
    scale = torch.tensor(min(max(log_scale, -7.0), 4.0), dtype=torch.float64).exp()
    edges = EVERY_INTENSITY.flatten().double()
    below = torch.sigmoid((edges + 1 / 255 - mean) / scale)
    below[-1] = 1
    expected = below.diff(prepend=torch.zeros(1, dtype=torch.float64))
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_mean_is_that_of_the_enumerated_distribution():
    likelihood = single_number(3)
    for seed in range(20):
        stream = torch.Generator().manual_seed(seed)
        parameters = 2 * torch.randn(1, 9, 1, 1, generator=stream)
        expected = (probabilities(likelihood, parameters) * EVERY_INTENSITY.flatten()).sum()
        # Half a step of the grid bounds the difference.
        assert abs(likelihood.mean(parameters).item() - expected.item()) < 1 / 255


def test_draws_follow_the_probabilities():
    likelihood = single_number(2)
    parameters = torch.tensor([0.5, -0.5, 0.3, -0.2, -1.0, -2.0]).view(1, 6, 1, 1)
    draws = likelihood.sample(
        parameters.expand(200_000, -1, 1, 1), torch.Generator().manual_seed(0)
    )
    values = ((draws.flatten() + 1) * 127.5).round().long()
    observed = torch.bincount(values, minlength=256).double() / 200_000
    expected = probabilities(likelihood, parameters)
    error = (expected * (1 - expected) / 200_000).sqrt()
    assert ((observed - expected).abs() < 5.5 * error + 1e-5).all()


def test_channels_have_parameters_of_their_own():
    values = {"kind": "discretized_logistic", "num_mixtures": 2}
    options = validate(LikelihoodOptions.of_kind("discretized_logistic"), values, source="test")
    likelihood = load_member(Likelihood, "discretized_logistic")(options, ImageShape(3, 2, 5))
    parameters = torch.randn(1, likelihood.num_parameters, 2, 5, requires_grad=True)
    likelihood.mean(parameters)[0, 1].sum().backward()
    touched = parameters.grad.view(3, 3, 2, 2, 5).abs().sum(dim=(0, 2, 3, 4)) > 0
    assert touched.tolist() == [False, True, False]
