import math

import pytest
import torch

from stages.bottlenecks.base import LatentSpec
from stages.metrics.base import Figure, Observation
from stages.metrics.latents import LatentActivity
from stages.nn.distributions import DiagonalGaussian
from stages.nn.posteriors import FactorizedPosterior, family_of
from tests.metrics.examples import PROTOCOL

SPEC = LatentSpec("continuous", grid_height=1, grid_width=3, channels=2, scale=0.5)
POINTS = LatentSpec("continuous", grid_height=1, grid_width=3, channels=2, deterministic=True)


def figures(mean: torch.Tensor, log_variance: torch.Tensor | None, *cuts: int) -> dict[str, Figure]:
    metric = LatentActivity(POINTS if log_variance is None else SPEC)
    for rows in torch.arange(len(mean)).tensor_split(cuts):
        posterior = None
        if log_variance is not None:
            posterior = DiagonalGaussian(mean[rows], log_variance[rows])
        pixels = torch.zeros(len(rows), 1, 4, 5, dtype=torch.uint8)
        nothing = torch.zeros(len(rows))
        metric.update(
            Observation(pixels, pixels, nothing, nothing, latents=mean[rows], posterior=posterior)
        )
    return {figure.name: figure for figure in metric.figures(PROTOCOL)}


def test_constructed_posteriors_have_the_activity_they_were_given() -> None:
    # Channel 0 is N(0, 1) for every image: collapsed. Channel 1 speaks, with unit variance.
    signs = torch.tensor([1.0, -1.0]).repeat(4)
    mean = torch.zeros(8, 2, 1, 3)
    mean[:, 1] = 2 * signs[:, None, None]
    found = figures(mean, torch.zeros_like(mean))
    assert found["active_units"].value == 3
    assert found["active_units_share"].value == 0.5
    assert found["collapsed_units_share"].value == 0.5
    assert found["kl"].value == pytest.approx(3 * 2.0**2 / 2)
    assert found["kl_per_dimension"].value == pytest.approx(1)
    assert found["latent_scale"].value == 0.5


def test_a_certain_posterior_is_not_active_if_it_says_the_same_of_every_image() -> None:
    mean = torch.full((6, 2, 1, 3), 7.0)
    found = figures(mean, torch.full_like(mean, -4.0))
    assert found["active_units"].value == 0
    per_number = 0.5 * (49 + math.exp(-4) + 4 - 1)
    assert found["kl_per_dimension"].value == pytest.approx(per_number)
    assert found["collapsed_units_share"].value == 0


def test_batches_do_not_matter_even_far_from_zero() -> None:
    random = torch.Generator().manual_seed(0)
    mean = 1e4 + 0.2 * torch.randn(50, 2, 1, 3, generator=random, dtype=torch.float64)
    whole, parts = figures(mean, mean * 0), figures(mean, mean * 0, 1, 20)
    assert {n: f.value for n, f in parts.items()} == pytest.approx(
        {n: f.value for n, f in whole.items()}, rel=1e-9
    )
    assert whole["active_units"].value == 6


def test_activity_is_relative_to_the_variance_of_the_prior() -> None:
    # Numbers in (0, 1), whose prior has variance 1/12: active above a hundredth of that.
    spec = LatentSpec("continuous", 1, 3, channels=2, posterior="beta", reference=(1.0, 1.0))
    signs = torch.tensor([1.0, -1.0]).repeat(4)
    mean = torch.full((8, 2, 1, 3), 0.5)
    mean[:, 0] += 0.9 * (0.01 / 12) ** 0.5 * signs[:, None, None]
    mean[:, 1] += 1.1 * (0.01 / 12) ** 0.5 * signs[:, None, None]
    posterior = FactorizedPosterior(mean, torch.full_like(mean, -3.0), family_of("beta", (1, 1)))
    pixels, nothing = torch.zeros(8, 1, 4, 5, dtype=torch.uint8), torch.zeros(8)
    metric = LatentActivity(spec)
    metric.update(Observation(pixels, pixels, nothing, nothing, latents=mean, posterior=posterior))
    found = {figure.name: figure for figure in metric.figures(PROTOCOL)}
    assert found["active_units"].value == 3
    assert found["kl"].protocol.details["against"] == "Beta(1, 1)"
    expected = posterior.kl_per_number().mean().item()
    assert found["kl_per_dimension"].value == pytest.approx(expected)


def test_points_have_no_kl() -> None:
    found = figures(torch.randn(9, 2, 1, 3, generator=torch.Generator().manual_seed(1)), None)
    assert "kl" not in found and "collapsed_units_share" not in found
    assert found["active_units"].value == 6
