import itertools
import math

import pytest
import torch

from stages.bottlenecks.base import LatentSpec
from stages.core.shapes import ImageShape
from stages.metrics.base import Figure, Observation
from stages.metrics.likelihood import TwoStageLikelihood, own_units, reference_log_prob
from stages.nn.distributions import DiagonalGaussian
from stages.nn.posteriors import FactorizedPosterior, family_of
from tests.metrics.examples import PROTOCOL

IMAGE = ImageShape(1, 2, 3)
CODES = LatentSpec("codes", grid_height=1, grid_width=2, num_codes=4)
LATENTS = LatentSpec("continuous", grid_height=1, grid_width=3, channels=2, scale=0.4)
random = torch.Generator().manual_seed(0)


def figures(metric: TwoStageLikelihood, *batches: Observation) -> dict[str, Figure]:
    for batch in batches:
        metric.update(batch)
    return {figure.name: figure for figure in metric.figures(PROTOCOL)}


def observed(log_prior: torch.Tensor, distortion: torch.Tensor, **latents: object) -> Observation:
    pixels = torch.zeros(len(log_prior), *IMAGE, dtype=torch.uint8)
    return Observation(pixels, pixels, log_prior, distortion, **latents)


def continuous(count: int) -> tuple[torch.Tensor, DiagonalGaussian]:
    shape = (count, 2, 1, 3)
    mean, noise = (torch.randn(shape, generator=random, dtype=torch.float64) for _ in range(2))
    posterior = DiagonalGaussian(mean, torch.randn(shape, generator=random).double() - 2)
    return mean + posterior.std * noise, posterior


def test_a_uniform_prior_gains_nothing() -> None:
    log_prior = torch.full((5,), -2 * math.log(4))
    found = figures(
        TwoStageLikelihood(CODES, IMAGE, discretized=False),
        observed(log_prior, torch.ones(5), codes=torch.zeros(5, 1, 2, dtype=torch.int64)),
    )
    assert found["prior_bits_per_code"].value == pytest.approx(2)
    assert found["prior_baseline_bits_per_code"].value == pytest.approx(2)
    assert found["prior_gain_nats"].value == pytest.approx(0, abs=1e-6)
    assert found["distortion_nats"].value == 1


def test_targets_that_training_draws_are_named() -> None:
    seen = observed(torch.zeros(2), torch.zeros(2), codes=torch.zeros(2, 1, 2, dtype=torch.int64))
    for drawn in (False, True):
        found = figures(TwoStageLikelihood(CODES, IMAGE, False, draws_targets=drawn), seen)
        for name in ("distortion_nats", "total_nats"):
            assert ("target" in found[name].protocol.details) == drawn


def test_a_density_gets_no_bits_per_dim() -> None:
    seen = observed(torch.zeros(2), torch.zeros(2), codes=torch.zeros(2, 1, 2, dtype=torch.int64))
    found = figures(TwoStageLikelihood(CODES, IMAGE, discretized=False), seen)
    assert not any("dim" in figure.unit for figure in found.values())


def test_points_in_continuous_space_get_none_either() -> None:
    points = LatentSpec("continuous", 1, 3, channels=2, deterministic=True)
    latents, _ = continuous(2)
    seen = observed(torch.zeros(2), torch.zeros(2), latents=latents)
    found = figures(TwoStageLikelihood(points, IMAGE, discretized=True), seen)
    assert "total_bits_per_dim" not in found and "rate_nats" not in found


def test_two_stage_bits_bound_the_exact_likelihood_of_an_enumerable_model() -> None:
    # A line over all images of 2 pixels with 3 intensities: p(x) = sum_c p(c) p(x|c) can be summed.
    spec = LatentSpec("codes", grid_height=1, grid_width=2, num_codes=3)
    image = ImageShape(1, 1, 2)
    prior = torch.rand(9, generator=random).log_softmax(dim=0)
    per_pixel = (3 * torch.rand(9, 2, 3, generator=random)).log_softmax(dim=2)
    images = torch.tensor(list(itertools.product(range(3), repeat=2)))
    given = torch.stack([per_pixel[:, 0, x0] + per_pixel[:, 1, x1] for x0, x1 in images])
    exact = -torch.logsumexp(given + prior, dim=1)
    assert torch.exp(-exact).sum().item() == pytest.approx(1)
    best = (given + prior).argmax(dim=1)
    rows = torch.arange(9)
    pixels = images.to(torch.uint8).reshape(9, 1, 1, 2)
    codes = torch.stack([best // 3, best % 3], dim=1).reshape(9, 1, 2)
    found = figures(
        TwoStageLikelihood(spec, image, discretized=True),
        Observation(pixels, pixels, prior[best], -given[rows, best], codes=codes),
    )
    expected = -(given[rows, best] + prior[best]).double().mean() / (2 * math.log(2))
    bits = found["total_bits_per_dim"].value
    assert bits == pytest.approx(expected.item())
    assert bits > exact.mean().item() / (2 * math.log(2))


def test_the_bound_is_tight_when_each_image_has_one_code() -> None:
    # p(x|c) = 1 for the one image of code c: the line is the prior, and the bound an equality.
    log_prior = torch.rand(4, generator=random).log_softmax(dim=0)
    spec = LatentSpec("codes", 1, 1, num_codes=4)
    found = figures(
        TwoStageLikelihood(spec, IMAGE, discretized=True),
        observed(log_prior, torch.zeros(4), codes=torch.arange(4).reshape(4, 1, 1)),
    )
    expected = -log_prior.mean().item() / (6 * math.log(2))
    assert found["total_bits_per_dim"].value == pytest.approx(expected)


def test_the_elbo_is_exact_under_the_true_posterior() -> None:
    # z ~ N(0, 1), x = z + noise in one number: with q = p(z|x) every draw gives log p(x) itself.
    spec = LatentSpec("continuous", grid_height=1, grid_width=1, channels=1)
    image = ImageShape(1, 1, 1)
    x = torch.linspace(-2, 2, 7, dtype=torch.float64)
    posterior = DiagonalGaussian(
        (x / 2).reshape(7, 1, 1, 1), torch.full((7, 1, 1, 1), math.log(0.5)).double()
    )
    noise = torch.randn(7, 1, 1, 1, generator=random, dtype=torch.float64)
    z = posterior.mean + posterior.std * noise
    distortion = 0.5 * ((x - z.flatten()) ** 2 + math.log(2 * math.pi))
    exact = 0.5 * (x**2 / 2 + math.log(2 * math.pi * 2))
    pixels = torch.zeros(7, 1, 1, 1, dtype=torch.uint8)
    found = figures(
        TwoStageLikelihood(spec, image, discretized=True),
        Observation(
            pixels,
            pixels,
            reference_log_prob(z, spec),
            distortion,
            latents=z,
            posterior=posterior,
        ),
    )
    assert found["total_bits_per_dim"].value * math.log(2) == pytest.approx(exact.mean().item())
    assert found["prior_gain_nats"].value == pytest.approx(0, abs=1e-12)
    assert found["rate_nats"].value == pytest.approx(found["rate_baseline_nats"].value)


def test_the_scale_of_stored_latents_changes_units_not_probabilities() -> None:
    latents, _ = continuous(6)
    stored = LATENTS.scale * latents
    # N(0, scale^2) over stored latents is N(0, 1) over the autoencoder's own.
    density = torch.distributions.Normal(0.0, LATENTS.scale).log_prob(stored).sum(dim=(1, 2, 3))
    torch.testing.assert_close(own_units(density, LATENTS), reference_log_prob(latents, LATENTS))
    assert torch.equal(own_units(density, CODES), density)


def test_the_rate_does_not_depend_on_the_scale() -> None:
    latents, posterior = continuous(6)
    rates = []
    for scale in (0.1, 1.0, 7.0):
        spec = LatentSpec("continuous", 1, 3, channels=2, scale=scale)
        stored = torch.distributions.Normal(0.3 * scale, 1.5 * scale).log_prob(scale * latents)
        log_prior = own_units(stored.sum(dim=(1, 2, 3)), spec)
        seen = observed(log_prior, torch.zeros(6), latents=latents, posterior=posterior)
        found = figures(TwoStageLikelihood(spec, IMAGE, discretized=True), seen)
        rates.append((found["rate_nats"].value, found["total_bits_per_dim"].value))
    assert rates[0] == pytest.approx(rates[1])
    assert rates[2] == pytest.approx(rates[1])


def test_the_rate_under_n01_is_the_closed_form_kl_on_average() -> None:
    # 4000 draws of one posterior; five standard errors of the estimate.
    mean = torch.full((4000, 2, 1, 3), 0.7, dtype=torch.float64)
    posterior = DiagonalGaussian(mean, torch.full_like(mean, -1.0))
    noise = torch.randn(mean.shape, generator=random, dtype=torch.float64)
    latents = mean + posterior.std * noise
    normal = reference_log_prob(latents, LATENTS)
    seen = observed(normal, torch.zeros(4000), latents=latents, posterior=posterior)
    found = figures(TwoStageLikelihood(LATENTS, IMAGE, discretized=False), seen)
    spread = (posterior.log_prob(latents) - normal).std().item() / math.sqrt(4000)
    kl = posterior.kl_per_number().sum(dim=(1, 2, 3)).mean().item()
    assert abs(found["rate_baseline_nats"].value - kl) < 5 * spread


@pytest.mark.parametrize(
    ("posterior", "reference", "name"),
    [
        ("laplace", (), "Laplace(0, 1)"),
        ("gamma", (2.0, 3.0), "Gamma(2, rate 3)"),
        ("beta", (1.0, 2.0), "Beta(1, 2)"),
    ],
)
def test_the_baseline_is_the_prior_of_the_posteriors_family(
    posterior: str, reference: tuple[float, ...], name: str
) -> None:
    spec = LatentSpec(
        "continuous", 1, 3, channels=2, scale=0.4, posterior=posterior, reference=reference
    )
    numbers = torch.tensor(reference or (0.0, 1.0), dtype=torch.float64)
    prior = {
        "laplace": torch.distributions.Laplace,
        "gamma": torch.distributions.Gamma,
        "beta": torch.distributions.Beta,
    }[posterior](*numbers)
    mean = torch.full((4000, 2, 1, 3), 0.3, dtype=torch.float64)
    q = FactorizedPosterior(mean, torch.full_like(mean, -4.0), family_of(posterior, reference))
    latents = q.rsample(random)
    expected = prior.log_prob(latents).sum(dim=(1, 2, 3))
    torch.testing.assert_close(reference_log_prob(latents, spec), expected)
    # The learned prior is the same one over what is stored: it gains nothing.
    stored = expected - spec.numbers * math.log(spec.scale)
    seen = observed(own_units(stored, spec), torch.zeros(4000), latents=latents, posterior=q)
    found = figures(TwoStageLikelihood(spec, IMAGE, discretized=False), seen)
    assert found["prior_gain_nats"].value == pytest.approx(0, abs=1e-9)
    assert found["prior_baseline_nats"].protocol.details["baseline"] == name
    # The rate is the closed-form KL on average; five standard errors.
    spread = (q.log_prob(latents) - expected).std().item() / math.sqrt(4000)
    kl = q.kl_per_number().sum(dim=(1, 2, 3)).mean().item()
    assert abs(found["rate_baseline_nats"].value - kl) < 5 * spread


def test_batches_do_not_matter() -> None:
    latents, posterior = continuous(5)
    log_prior, distortion = torch.randn(2, 5, generator=random).double()

    def part(rows: slice) -> Observation:
        half = DiagonalGaussian(posterior.mean[rows], posterior.log_variance[rows])
        return observed(log_prior[rows], distortion[rows], latents=latents[rows], posterior=half)

    whole = figures(TwoStageLikelihood(LATENTS, IMAGE, True), part(slice(0, 5)))
    parts = figures(TwoStageLikelihood(LATENTS, IMAGE, True), part(slice(0, 2)), part(slice(2, 5)))
    assert {n: f.value for n, f in parts.items()} == pytest.approx(
        {n: f.value for n, f in whole.items()}, rel=1e-12
    )
