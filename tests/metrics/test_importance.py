"""Importance-weighted bounds on a linear-Gaussian model, whose likelihood is known."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import MultivariateNormal

import stages.metrics.importance
from stages.autoencoders.base import Autoencoder
from stages.bottlenecks.base import LatentSpec
from stages.core.shapes import ImageShape
from stages.heads.categorical import CategoricalOptions
from stages.likelihoods.bernoulli import Bernoulli, BernoulliOptions
from stages.likelihoods.gaussian import Gaussian, GaussianOptions
from stages.metrics.importance import (
    ImportanceBound,
    fixed_targets,
    prior_gains,
    two_stage_log_weights,
)
from stages.nn.distributions import DiagonalGaussian
from stages.priors.reference import ReferenceOptions, ReferencePrior
from tests.metrics.examples import PROTOCOL

IMAGE = ImageShape(1, 1, 3)
SIGMA = 0.5
# Orthogonal columns: the true posterior is diagonal.
LOADINGS = torch.tensor([[0.9, 0.4], [0.9, -0.4], [0.0, 0.6]])


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def spec(scale=1.0):
    return LatentSpec("continuous", 1, 1, channels=2, scale=scale)


class LinearGaussian(Autoencoder):
    """x = W z + sigma eps, z ~ N(0, I), judged by its true posterior or by a displaced one."""

    def __init__(self, displaced=0.0, widened=0.0):
        nn.Module.__init__(self)
        self.displaced, self.widened = displaced, widened
        options = GaussianOptions(kind="gaussian", sigma="fixed", value=SIGMA, decay=0.0)
        self.likelihood = Gaussian(options, IMAGE)

    @property
    def spec(self):
        return spec()

    def forward(self, images, labels=None, generator=None, step=None):
        raise AssertionError("nothing is trained here")

    def encode(self, images, labels=None):
        precision = 1 + LOADINGS.square().sum(dim=0) / SIGMA**2
        mean = images.flatten(1) @ LOADINGS / SIGMA**2 / precision + self.displaced
        log_variance = (-precision.log() + self.widened).expand_as(mean)
        return DiagonalGaussian(mean[:, :, None, None], log_variance[:, :, None, None])

    def decode(self, latents, labels=None):
        return (latents.flatten(1) @ LOADINGS.T)[:, None, None, :]

    def log_weights(self, images, labels, draws, generator):
        repeated = images.repeat(draws, 1, 1, 1)
        posterior = self.encode(repeated)
        latents = posterior.rsample(generator)
        likelihood = self.likelihood.log_prob(repeated, self.decode(latents))
        ratio = posterior.standard_log_prob(latents) - posterior.log_prob(latents)
        return (likelihood + ratio).view(draws, len(images))


def exact(images):
    """-log p(x) in nats."""
    covariance = LOADINGS @ LOADINGS.T + SIGMA**2 * torch.eye(3)
    return -MultivariateNormal(torch.zeros(3), covariance).log_prob(images.flatten(1))


def some_images(count):
    return torch.randn(count, *IMAGE, generator=stream(7)).clamp(-1, 1)


def bound(weigh, draws, *batches, seed=0):
    found, generator = ImportanceBound(weigh, draws), stream(seed)
    for images in batches:
        found.take(found.weighed(images, None, generator))
    return {
        figure.name: figure for figure in found.figures("", IMAGE, False, PROTOCOL.also(seed=seed))
    }


@pytest.mark.parametrize("draws", [1, 3])
def test_with_the_true_posterior_every_weight_is_the_likelihood(draws):
    images = some_images(11)
    found = bound(LinearGaussian().log_weights, draws, images[:4], images[4:])
    expected = exact(images).mean().item()
    assert found["iwae_nats"].value == pytest.approx(expected, rel=1e-5)
    assert found["elbo_nats"].value == pytest.approx(expected, rel=1e-5)
    assert found["iwae_nats"].n == 11
    spread = exact(images).std(correction=1).item() / 11**0.5
    error = found["iwae_nats"].protocol.found["standard_error_over_images"]
    assert error == pytest.approx(spread, rel=1e-4)


def test_a_single_image_has_no_standard_error():
    own, learned = (ImportanceBound(LinearGaussian().log_weights, 2) for _ in range(2))
    for found in (own, learned):
        found.take(found.weighed(some_images(1), None, stream()))
    figures = own.figures("", IMAGE, False, PROTOCOL) + prior_gains(own, learned, PROTOCOL)
    for figure in figures:
        assert figure.n == 1 and math.isfinite(figure.value)
        assert figure.protocol.found == {"standard_error_over_images": None}
    # Of two it is half of what lies between them: the mean's deviation, unbiased.
    learned.take(learned.weighed(some_images(2)[1:], None, stream()))
    costs = learned.costs["iwae"]
    error = learned.figures("", IMAGE, False, PROTOCOL)[0].protocol.found
    expected = (costs[0] - costs[1]).abs().item() / 2
    assert error["standard_error_over_images"] == pytest.approx(expected)


def test_the_bound_tightens_with_draws_and_never_crosses_the_truth():
    # 2000 independent estimates for one image; each difference beyond five standard errors.
    images = some_images(1).expand(2000, -1, -1, -1)
    model, truth = LinearGaussian(displaced=0.3, widened=-0.7), exact(some_images(1)).item()
    found = [bound(model.log_weights, draws, images) for draws in (1, 4, 16, 64)]
    values = [f["iwae_nats"].value for f in found]
    errors = [f["iwae_nats"].protocol.found["standard_error_over_images"] for f in found]
    for looser, tighter, a, b in zip(values, values[1:], errors, errors[1:], strict=False):
        assert looser - tighter > 5 * math.hypot(a, b)
    assert values[-1] > truth - 5 * errors[-1]
    assert values[-1] - truth < 0.25 * (values[0] - truth)


def test_one_draw_is_the_evidence_lower_bound():
    images = some_images(1).expand(4000, -1, -1, -1)
    model = LinearGaussian(displaced=0.3, widened=0.5)
    found = bound(model.log_weights, 1, images)
    assert found["iwae_nats"].value == pytest.approx(found["elbo_nats"].value)
    q, true = model.encode(images[:1]), LinearGaussian().encode(images[:1])
    # The gap of the bound is the KL from q to the true posterior.
    ratio = (q.mean - true.mean).square() + q.log_variance.exp()
    difference = true.log_variance - q.log_variance
    gap = 0.5 * (ratio / true.log_variance.exp() + difference - 1).sum().item()
    expected = exact(images[:1]).item() + gap
    error = 5 * found["iwae_nats"].protocol.found["standard_error_over_images"]
    assert found["elbo_nats"].value == pytest.approx(expected, abs=error)


def test_it_converges_to_the_likelihood():
    images, draws = some_images(3), 20_000
    model = LinearGaussian(displaced=0.2, widened=0.6)
    with torch.no_grad():
        weights = (model.log_weights(images, None, 4000, stream(3)) + exact(images)).exp()
    # Five standard errors of the mean weight, by the delta method, the images averaged.
    error = 5 * (weights.var(dim=0) / draws).sum().sqrt().item() / 3
    found = bound(model.log_weights, draws, images)
    assert found["iwae_nats"].value == pytest.approx(exact(images).mean().item(), abs=error)
    assert error < 0.05


def test_portions_of_draws_do_not_matter(monkeypatch):
    weights = iter(100 * torch.randn(40, 5, generator=stream()))

    def weigh(images, labels, draws, generator):
        return torch.stack([next(weights) for _ in range(draws)])

    whole = bound(weigh, 20, some_images(5))
    weights = iter(100 * torch.randn(40, 5, generator=stream()))
    monkeypatch.setattr(stages.metrics.importance, "DRAWS_AT_A_TIME", 7)
    parts = bound(weigh, 20, some_images(5))
    for name in whole:
        assert parts[name].value == pytest.approx(whole[name].value, rel=1e-12)


def test_weights_far_from_one_are_summed_without_loss():
    logs = torch.tensor([[-90_000.0, 800.0], [-90_001.0, -torch.inf], [-95_000.0, 801.0]])
    found = bound(lambda images, labels, draws, generator: logs, 3, some_images(2))
    first = 90_000 - math.log((1 + math.exp(-1)) / 3)
    second = -801 - math.log((1 + math.exp(-1)) / 3)
    assert found["iwae_nats"].value == pytest.approx((first + second) / 2, rel=1e-12)


@pytest.mark.parametrize("scale", [1.0, 0.3, 6.0])
def test_the_second_stages_prior_in_stored_units_gives_the_same_weights(scale):
    model, images = LinearGaussian(displaced=0.3), some_images(4)
    options, head = (
        ReferenceOptions(kind="reference"),
        CategoricalOptions(kind="categorical", tied=False),
    )
    prior = ReferencePrior(options, head, spec(scale), num_classes=0)
    weigh = two_stage_log_weights(model, prior, spec(scale))
    expected = torch.cat([model.log_weights(images, None, 1, stream(i)) for i in range(2)])
    found = torch.cat([weigh(images, None, 1, stream(i)) for i in range(2)])
    torch.testing.assert_close(found.float(), expected, rtol=1e-4, atol=1e-4)


def test_the_gain_of_a_prior_is_the_difference_of_the_bounds_on_the_same_draws():
    class Wide(ReferencePrior):
        def log_prob(self, latents, labels):
            return super().log_prob(latents / 2, labels) - 2 * math.log(2)

    options, head = (
        ReferenceOptions(kind="reference"),
        CategoricalOptions(kind="categorical", tied=False),
    )
    model, images = LinearGaussian(displaced=0.2, widened=0.4), some_images(6)
    weighs = [
        two_stage_log_weights(model, prior(options, head, spec(), num_classes=0), spec())
        for prior in (ReferencePrior, Wide)
    ]
    bounds = [ImportanceBound(weigh, 8) for weigh in weighs]
    for found in bounds:
        found.take(found.weighed(images, None, stream(2)))
    gains = {f.name: f for f in prior_gains(*bounds, PROTOCOL)}
    for name in ("iwae", "elbo"):
        own, learned = (b.costs[name] for b in bounds)
        assert gains[f"{name}_prior_gain_nats"].value == pytest.approx((own - learned).mean())
    # Of one bound it is the difference of the log-densities of the draws: known in closed form,
    # -E[log N(z; 0, 1) - log N(z; 0, 4)] = (3/8) E z^2 - log 2 for either number.
    q = model.encode(images)
    squares = (q.mean.square() + q.log_variance.exp()).sum(dim=(1, 2, 3)).mean().item()
    more = [ImportanceBound(weigh, 500) for weigh in weighs]
    for found in more:
        found.take(found.weighed(images, None, stream(3)))
    gain = {f.name: f.value for f in prior_gains(*more, PROTOCOL)}["elbo_prior_gain_nats"]
    assert gain == pytest.approx(3 / 8 * squares - 2 * math.log(2), abs=0.02)


def test_a_prior_that_is_better_gives_a_better_bound():
    """Under N(0, 4 I) data of N(0, I) are less probable: the exact likelihood says by how much."""

    class Wide(ReferencePrior):
        def log_prob(self, latents, labels):
            return super().log_prob(latents / 2, labels) - 2 * math.log(2)

    options, head = (
        ReferenceOptions(kind="reference"),
        CategoricalOptions(kind="categorical", tied=False),
    )
    model, images, draws = LinearGaussian(widened=0.8), some_images(1), 50
    prior = Wide(options, head, spec(0.5), num_classes=0)
    weigh = two_stage_log_weights(model, prior, spec(0.5))
    found = bound(weigh, draws, images.expand(2000, -1, -1, -1))["iwae_nats"]
    covariance = 4 * LOADINGS @ LOADINGS.T + SIGMA**2 * torch.eye(3)
    truth = -MultivariateNormal(torch.zeros(3), covariance).log_prob(images.flatten(1)).item()
    error = 5 * found.protocol.found["standard_error_over_images"]
    # The bound lies above the truth by half the relative variance of the mean weight.
    with torch.no_grad():
        ratios = (weigh(images.expand(2000, -1, -1, -1), None, 2, stream(5)) + truth).exp()
    gap = ratios.var().item() / (2 * draws)
    assert gap < 0.05
    assert found.value == pytest.approx(truth + gap, abs=error + 0.3 * gap)
    assert abs(truth - exact(images).item()) > 10 * error


def test_bits_per_dim_only_of_probabilities():
    found = ImportanceBound(LinearGaussian().log_weights, 2)
    found.take(found.weighed(some_images(4), None, stream()))
    assert [f.name for f in found.figures("", IMAGE, False, PROTOCOL)] == ["iwae_nats", "elbo_nats"]
    nats, bits, elbo, elbo_bits = found.figures("two_stage_", IMAGE, True, PROTOCOL)
    assert elbo_bits.value == pytest.approx(elbo.value / (3 * math.log(2)))
    assert bits.name == "two_stage_iwae_bits_per_dim"
    assert bits.value == pytest.approx(nats.value / (3 * math.log(2)))


def test_a_request_to_stop_is_obeyed_between_portions():
    calls = []

    def pause():
        calls.append(1)
        if len(calls) == 3:
            raise InterruptedError

    with pytest.raises(InterruptedError):
        ImportanceBound(LinearGaussian().log_weights, 1000).weighed(
            some_images(2), None, stream(), pause
        )


def test_binary_targets_are_drawn_once_each_from_its_own_stream():
    image = ImageShape(1, 20, 30)
    likelihood = Bernoulli(BernoulliOptions(kind="bernoulli", binarise="dynamic"), image)
    grey = torch.linspace(-1, 1, 30).expand(6, 1, 20, 30).contiguous()
    rows = [4, 9, 2, 0, 1, 7]
    targets = fixed_targets(likelihood, grey, rows, seed=3)
    assert set(targets.unique().tolist()) == {-1.0, 1.0}
    one = fixed_targets(likelihood, grey[2:3], [2], seed=3)
    assert torch.equal(one[0], targets[2])
    assert not torch.equal(targets[0], targets[1])
    assert not torch.equal(fixed_targets(likelihood, grey, rows, seed=4), targets)
    # 120 draws in each column: white as often as grey says, within five standard errors.
    shares = (targets.mean(dim=(0, 1, 2)) + 1) / 2
    grey_values = (grey[0, 0, 0] + 1) / 2
    assert ((shares - grey_values).abs() <= 5 * (0.25 / 120) ** 0.5).all()
    assert torch.equal(likelihood.target(targets, None), targets)
    assert torch.equal(likelihood.target(targets, stream()), targets)
