"""The loss is what its equation says; every combination of members trains."""

import itertools

import pytest
import torch

from stages.assembly.first_stage import FirstStageParams, build_first_stage
from stages.core.sections import parse_params
from stages.core.shapes import ImageShape
from stages.nn.distributions import DiagonalGaussian
from tests.bottlenecks.examples import EXAMPLES as BOTTLENECKS
from tests.likelihoods.examples import EXAMPLES as LIKELIHOODS

IMAGE = ImageShape(3, 8, 12)
CONV = {"kind": "conv", "widths": [8, 10], "blocks": 1, "upsampling": "nearest"}


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def build(bottleneck, likelihood):
    sections = {
        "autoencoder": {"kind": "flat"},
        "backbone": CONV,
        "bottleneck": bottleneck,
        "likelihood": likelihood,
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


@pytest.mark.parametrize(
    ("bottleneck", "likelihood"), list(itertools.product(BOTTLENECKS, LIKELIHOODS)), ids=str
)
def test_every_combination_trains_encodes_and_decodes(bottleneck, likelihood):
    autoencoder, images = build(bottleneck, likelihood), some_images()
    result = autoencoder(images, stream())
    assert result.distortion.shape == (4,)
    assert result.reconstructions.shape == images.shape
    result.loss.backward()
    for name, parameter in autoencoder.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    encoded = autoencoder.encode(images)
    latents = encoded.mean if isinstance(encoded, DiagonalGaussian) else encoded
    parameters = autoencoder.decode(latents)
    assert parameters.shape == (4, autoencoder.likelihood.num_parameters, 8, 12)


@pytest.mark.parametrize("bottleneck", BOTTLENECKS, ids=str)
def test_the_loss_is_nats_per_dim_and_the_auxiliary_term(bottleneck):
    autoencoder = build(bottleneck, LIKELIHOODS[0])
    result = autoencoder(some_images(), stream())
    nats = result.distortion + result.bottlenecked.rate
    expected = (nats / IMAGE.dims).mean() + result.bottlenecked.auxiliary
    torch.testing.assert_close(result.loss, expected)


def test_a_deterministic_bottleneck_reconstructs_what_decoding_its_latents_gives():
    for bottleneck in BOTTLENECKS:
        if bottleneck["kind"] == "gaussian":
            continue
        autoencoder, images = build(bottleneck, LIKELIHOODS[0]).eval(), some_images()
        encoded = autoencoder.encode(images)
        latents = encoded.mean if isinstance(encoded, DiagonalGaussian) else encoded
        again = autoencoder.likelihood.mean(autoencoder.decode(latents))
        torch.testing.assert_close(autoencoder(images).reconstructions, again)


def test_encoder_and_likelihood_see_the_same_binary_images():
    autoencoder = build(BOTTLENECKS[0], {"kind": "bernoulli", "binarise": "dynamic"})
    images = some_images()
    result = autoencoder(images, stream())
    binary = autoencoder.likelihood.target(images, stream())
    torch.testing.assert_close(result.distortion, autoencoder(binary, stream()).distortion)


@pytest.mark.parametrize("bottleneck", BOTTLENECKS, ids=str)
def test_a_few_steps_fit_a_few_images(bottleneck):
    autoencoder, images = build(bottleneck, LIKELIHOODS[0]), some_images()
    autoencoder.bottleneck.start_from_data(autoencoder.backbone.encoder(images), stream())
    optimizer = torch.optim.Adam(autoencoder.parameters(), lr=5e-3)
    errors = []
    for step in range(60):
        optimizer.zero_grad()
        result = autoencoder(images, stream(step))
        result.loss.backward()
        optimizer.step()
        autoencoder.bottleneck.after_step(stream(step))
        errors.append((result.reconstructions - images).square().mean().item())
    assert min(errors[-5:]) < 0.6 * errors[0]
