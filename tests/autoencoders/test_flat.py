"""The loss is what its equation says; every combination of members trains."""

import itertools

import pytest
import torch

from stages.assembly.first_stage import FirstStageParams, build_first_stage
from stages.core.errors import ParamsError
from stages.core.sections import parse_params
from stages.core.shapes import ImageShape
from stages.nn.distributions import Posterior
from tests.backbones.examples import conv
from tests.bottlenecks.examples import EXAMPLES as BOTTLENECKS
from tests.likelihoods.examples import EXAMPLES as LIKELIHOODS
from tests.objectives.examples import ELBO

IMAGE = ImageShape(3, 8, 12)
CONV = conv([8, 10], 1)


# Every member once and more: the loss has no case that asks for one pair and no other.
PAIRS = list(zip(BOTTLENECKS, itertools.cycle(LIKELIHOODS), strict=False)) + list(
    zip(itertools.cycle(BOTTLENECKS[::-1]), LIKELIHOODS, strict=False)
)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def build(bottleneck, likelihood, objective=ELBO):
    sections = {
        "autoencoder": {"kind": "flat"},
        "backbone": CONV,
        "bottleneck": bottleneck,
        "likelihood": likelihood,
        "objective": objective,
    }
    params = parse_params(FirstStageParams, sections, source="test", strict=True)
    torch.manual_seed(0)
    return build_first_stage(params, IMAGE)


def some_images(batch=4):
    """Smooth images on the 8-bit grid: a different slope each."""
    slopes = torch.randn(batch, 3, 2, 1, 1, generator=stream(9))
    rows = torch.linspace(-1, 1, IMAGE.height)[:, None]
    columns = torch.linspace(-1, 1, IMAGE.width)
    images = torch.tanh(slopes[:, :, 0] * rows + slopes[:, :, 1] * columns)
    return ((images + 1) * 127.5).round() / 127.5 - 1


@pytest.mark.parametrize(("bottleneck", "likelihood"), PAIRS, ids=str)
def test_every_member_trains_encodes_and_decodes(bottleneck, likelihood):
    autoencoder, images = build(bottleneck, likelihood), some_images()
    result = autoencoder(images, generator=stream())
    assert result.distortion.shape == (4,)
    assert result.reconstructions.shape == images.shape
    result.loss.backward()
    for name, parameter in autoencoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    encoded = autoencoder.encode(images)
    latents = encoded.mean if isinstance(encoded, Posterior) else encoded
    parameters = autoencoder.decode(latents)
    assert parameters.shape == (4, autoencoder.likelihood.num_parameters, 8, 12)


@pytest.mark.parametrize("bottleneck", BOTTLENECKS, ids=str)
def test_the_loss_is_nats_per_dim_and_the_auxiliary_term(bottleneck):
    autoencoder = build(bottleneck, LIKELIHOODS[0], ELBO | {"kl_weight": 3.0})
    features, images = [], some_images()
    autoencoder.bottleneck.register_forward_hook(lambda m, i, passed: features.append(passed))
    result = autoencoder(images, generator=stream())
    kl = 0 if features[0].kl is None else features[0].kl.sum(dim=(1, 2, 3))
    surrogate = autoencoder.bottleneck.surrogate(features[0], result.distortion + kl)
    nats = (result.distortion + 3 * kl).mean() + surrogate
    torch.testing.assert_close(result.loss, nats / IMAGE.dims + features[0].auxiliary)


def test_importance_weights_average_to_the_evidence_lower_bound():
    draws = 400
    autoencoder = build({"kind": "gaussian", "layout": "vector", "channels": 3}, LIKELIHOODS[0])
    images = some_images().requires_grad_(False)
    with torch.no_grad():
        weights = autoencoder.log_weights(images, None, draws, stream())
        posterior = autoencoder.encode(images)
        bounds = []
        for draw in range(draws):
            parameters = autoencoder.decode(posterior.rsample(stream(draw)))
            likelihood = autoencoder.likelihood.log_prob(images, parameters)
            bounds.append(likelihood - posterior.kl_per_number().sum(dim=(1, 2, 3)))
    bounds = torch.stack(bounds)
    error = 5 * ((weights.var(dim=0) + bounds.var(dim=0)) / draws).sqrt()
    assert ((weights.mean(dim=0) - bounds.mean(dim=0)).abs() < error).all()


def test_codes_have_no_importance_weights():
    codes = next(values for values in BOTTLENECKS if values["kind"] == "vq")
    with pytest.raises(ParamsError, match="need continuous latents .* stores codes"):
        build(codes, LIKELIHOODS[0]).log_weights(some_images(), None, 2, stream())


def test_a_deterministic_bottleneck_reconstructs_what_decoding_its_latents_gives():
    for bottleneck in BOTTLENECKS:
        autoencoder, images = build(bottleneck, LIKELIHOODS[0]).eval(), some_images()
        spec = autoencoder.spec
        if spec.kind == "continuous" and not spec.deterministic:
            continue
        encoded = autoencoder.encode(images)
        latents = encoded.mean if isinstance(encoded, Posterior) else encoded
        again = autoencoder.likelihood.mean(autoencoder.decode(latents))
        torch.testing.assert_close(autoencoder(images).reconstructions, again)


def test_encoder_and_likelihood_see_the_same_binary_images():
    autoencoder = build(BOTTLENECKS[0], {"kind": "bernoulli", "binarise": "dynamic"})
    images = some_images()
    result = autoencoder(images, generator=stream())
    binary = autoencoder.likelihood.target(images, stream())
    torch.testing.assert_close(
        result.distortion, autoencoder(binary, generator=stream()).distortion
    )


@pytest.mark.parametrize("bottleneck", BOTTLENECKS, ids=str)
def test_a_few_steps_fit_a_few_images(bottleneck):
    autoencoder, images = build(bottleneck, LIKELIHOODS[0]), some_images()
    autoencoder.start_from_data(images, None, stream())
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=5e-3)
    errors = []
    for step in range(60):
        optimizer.zero_grad()
        result = autoencoder(images, None, stream(step), torch.tensor(float(step)))
        result.loss.backward()
        optimizer.step()
        autoencoder.after_step(stream(step))
        errors.append((result.reconstructions - images).square().mean().item())
    assert min(errors[-5:]) < 0.6 * errors[0]
