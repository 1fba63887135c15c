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
    values = {
        "kind": "discretized_logistic",
        "num_mixtures": num_mixtures,
        "channels": "independent",
    }
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
    values = {"kind": "discretized_logistic", "num_mixtures": 2, "channels": "independent"}
    options = validate(LikelihoodOptions.of_kind("discretized_logistic"), values, source="test")
    likelihood = load_member(Likelihood, "discretized_logistic")(options, ImageShape(3, 2, 5))
    parameters = torch.randn(1, likelihood.num_parameters, 2, 5, requires_grad=True)
    likelihood.mean(parameters)[0, 1].sum().backward()
    touched = parameters.grad.view(3, 3, 2, 2, 5).abs().sum(dim=(0, 2, 3, 4)) > 0
    assert touched.tolist() == [False, True, False]


def colours(num_mixtures, shape=(2, 1, 1)):
    """The likelihood of an image of a few channels that move with each other."""
    values = {"kind": "discretized_logistic", "num_mixtures": num_mixtures, "channels": "linear"}
    options = validate(LikelihoodOptions.of_kind("discretized_logistic"), values, source="test")
    return load_member(Likelihood, "discretized_logistic")(options, ImageShape(*shape))


EVERY_PAIR = torch.cartesian_prod(EVERY_INTENSITY.flatten(), EVERY_INTENSITY.flatten())


def test_linear_channels_are_one_probability_of_the_pixel_and_draws_follow_it():
    likelihood = colours(2)
    parameters = torch.randn(1, 14, 1, 1, generator=torch.Generator().manual_seed(0))
    many = parameters.expand(len(EVERY_PAIR), -1, 1, 1)
    log_prob = likelihood.log_prob(EVERY_PAIR[:, :, None, None], many)
    assert log_prob.double().exp().sum().item() == pytest.approx(1, abs=2e-4)
    probabilities = log_prob.double().exp().view(256, 256)
    draws = likelihood.sample(
        parameters.expand(50_000, -1, 1, 1), torch.Generator().manual_seed(1)
    ).flatten(1)
    for power in ((1, 0), (0, 1), (1, 1), (0, 2)):
        products = draws[:, 0] ** power[0] * draws[:, 1] ** power[1]
        terms = (EVERY_PAIR[:, 0] ** power[0] * EVERY_PAIR[:, 1] ** power[1]).view(256, 256)
        error = products.std() / 50_000**0.5
        assert (products.mean() - (probabilities * terms).sum()).abs() < 5 * error


def test_each_channel_moves_with_those_before_it_by_its_own_factor():
    """One narrow component: the most probable value is the mean plus the factors' sum."""
    likelihood = colours(1, (3, 1, 1))
    logits, means, log_scales = torch.zeros(3), torch.tensor([0.2, -0.1, 0.3]), torch.full((3,), -9)
    factors = torch.tensor([0.5, -0.4, 0.8])
    parameters = torch.cat([logits, means, log_scales, factors]).view(1, 12, 1, 1)
    green = -0.1 + 0.5 * 0.2
    expected = torch.tensor([0.2, green, 0.3 - 0.4 * 0.2 + 0.8 * green])
    for found in (
        likelihood.mean(parameters),
        likelihood.sample(parameters, torch.Generator().manual_seed(0)),
    ):
        torch.testing.assert_close(found.flatten(), expected, atol=0.02, rtol=0)
