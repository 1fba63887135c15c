"""An exact probability, blind to the future; what its context buys; its draws and its mean."""

import itertools
import math

import pytest
import torch

from stages.core.errors import ParamsError
from stages.core.intensities import from_pixels
from stages.core.shapes import ImageShape
from tests.likelihoods.examples import autoregressive, build


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def trained(image, levels, layers, context, size=0.5, **values):
    """A likelihood whose masked layers speak, as they do not at the start."""
    torch.manual_seed(0)
    likelihood = build(autoregressive(levels, layers, context, **values), image).eval()
    for parameter in likelihood.parameters():
        parameter.data.add_(size * torch.randn_like(parameter))
    return likelihood.requires_grad_(False)


def some_parameters(likelihood, image, batch=1):
    shape = (batch, likelihood.num_parameters, image.height, image.width)
    # As loud as what masked layers see of an image; without layers these are the logits.
    return torch.randn(shape, generator=stream(7)) * (0.1 if likelihood.options.layers else 1.0)


def every_image(image, levels):
    values = torch.linspace(-1, 1, levels).tolist()
    return torch.tensor(list(itertools.product(values, repeat=image.dims))).view(-1, *image)


@pytest.mark.parametrize(
    ("image", "levels", "layers", "context"),
    [
        (ImageShape(1, 2, 3), 2, 3, 2),
        (ImageShape(1, 3, 2), 2, 2, 1),
        (ImageShape(3, 1, 2), 3, 2, 2),
        (ImageShape(2, 3, 1), 3, 2, 0),
        (ImageShape(1, 1, 3), 16, 1, 1),
        (ImageShape(1, 2, 3), 3, 0, 0),
    ],
)
def test_probabilities_of_all_images_sum_to_one(image, levels, layers, context):
    likelihood = trained(image, levels, layers, context)
    images = every_image(image, levels)
    parameters = some_parameters(likelihood, image).expand(len(images), -1, -1, -1)
    probabilities = likelihood.log_prob(images, parameters).double().exp()
    assert probabilities.sum().item() == pytest.approx(1, abs=1e-5)
    # Not for want of structure: the probabilities differ.
    assert probabilities.std() > 0.1 * probabilities.mean()


@pytest.mark.parametrize(("channels", "context"), [(1, 2), (3, 1), (3, 0)])
def test_an_intensity_sees_the_past_within_the_context_and_no_more(channels, context):
    image = ImageShape(channels, 5, 6)
    likelihood = trained(image, levels=3, layers=2, context=context).double()
    images = torch.randn(1, *image, dtype=torch.float64, requires_grad=True)
    maps = torch.randn(1, 8, 5, 6, dtype=torch.float64, requires_grad=True)
    logits = likelihood.network(images, maps).unflatten(1, (channels, 2)).sum(dim=2)
    for output in itertools.product(range(channels), range(5), range(6)):
        seen, told = torch.autograd.grad(logits[(0, *output)], (images, maps), retain_graph=True)
        for source in itertools.product(range(channels), range(5), range(6)):
            up, right = output[1] - source[1], source[2] - output[2]
            expected = (
                source[0] < output[0]
                if (up, right) == (0, 0)
                else 0 <= up <= context and -context <= right <= (up or -1)
            )
            assert (seen[(0, *source)] != 0) == expected, (output, source)
        # The decoder speaks of the future as well: only its pixel must be among what is heard.
        assert told[0, :, output[1], output[2]].abs().sum() > 0


def test_without_layers_two_levels_are_bernoulli():
    image = ImageShape(3, 4, 2)
    ours = build(autoregressive(2, 0, 0, rounding="dynamic"), image)
    theirs = build({"kind": "bernoulli", "binarise": "dynamic"}, image)
    assert ours.num_parameters == theirs.num_parameters and not list(ours.parameters())
    pixels = torch.randint(256, (5, *image), generator=stream()).to(torch.uint8)
    images, logits = from_pixels(pixels), 3 * torch.randn(5, *image)
    target = theirs.target(images, stream(1))
    assert torch.equal(ours.target(images, stream(1)), target)
    assert torch.equal(ours.target(images, None), theirs.target(images, None))
    torch.testing.assert_close(ours.log_prob(target, logits), theirs.log_prob(target, logits))
    torch.testing.assert_close(ours.mean(logits), theirs.mean(logits))


@pytest.mark.parametrize("layers", [0, 2])
def test_draws_come_as_often_as_they_are_probable(layers):
    image, count = ImageShape(1, 2, 3), 40_000
    likelihood = trained(image, 2, layers, context=layers, size=0.4)
    parameters = some_parameters(likelihood, image)
    draws = likelihood.sample(parameters.expand(count, -1, -1, -1), stream(3))
    images = every_image(image, 2)
    expected = likelihood.log_prob(images, parameters.expand(64, -1, -1, -1)).double().exp()
    weights = 2 ** torch.arange(5, -1, -1)
    codes = ((draws.flatten(1) > 0) * weights).sum(dim=1)
    observed = torch.bincount(codes, minlength=64).double() / count
    error = (expected * (1 - expected) / count).sqrt()
    # 64 shares within 4.5 standard errors: by chance one in a few thousand runs fails; the seed is
    # fixed. One draw of the rarest image is allowed for.
    assert ((observed - expected).abs() < 4.5 * error + 1 / count).all()


@pytest.mark.parametrize(("channels", "context"), [(1, 2), (3, 1)])
def test_a_step_of_drawing_sees_what_the_whole_pass_sees(channels, context):
    """Where every conditional is certain, the draw is the certain image, borders included."""
    image = ImageShape(channels, 5, 7)
    likelihood = trained(image, 3, 3, context)
    likelihood.network.out.weight.mul_(3000)
    parameters = some_parameters(likelihood, image, batch=6)
    draws = likelihood.sample(parameters, stream())
    # Logits lie thousands apart: one number drawn from another context would cost as much. A tie
    # may fall either way and cost log 3.
    assert likelihood.log_prob(draws, parameters).min() > -3
    assert draws.std(dim=0).mean() > 0.1


def test_enough_sweeps_feed_the_conditional_means_back():
    image = ImageShape(1, 3, 4)
    likelihood = trained(image, 2, 3, 2, mean_sweeps=12)
    parameters = some_parameters(likelihood, image, batch=2)
    expected = torch.zeros(2, *image)
    for row, column in itertools.product(range(3), range(4)):
        logits = likelihood.network(expected, parameters)
        expected[:, :, row, column] = torch.tanh(logits / 2)[:, :, row, column]
    torch.testing.assert_close(likelihood.mean(parameters), expected)
    hasty = trained(image, 2, 3, 2, mean_sweeps=2)
    assert not torch.allclose(hasty.mean(parameters), expected, atol=1e-3)


def test_the_gradient_of_the_mean_is_that_of_its_last_sweep():
    image = ImageShape(1, 3, 4)
    likelihood = trained(image, 2, 2, 1, mean_sweeps=3)
    before = trained(image, 2, 2, 1, mean_sweeps=2)
    parameters = some_parameters(likelihood, image).requires_grad_()
    (found,) = torch.autograd.grad(likelihood.mean(parameters)[0, 0, 1, 2], parameters)
    with torch.no_grad():
        context = before.mean(parameters)
    last = torch.tanh(likelihood.network(context, parameters) / 2)
    (expected,) = torch.autograd.grad(last[0, 0, 1, 2], parameters)
    torch.testing.assert_close(found, expected)


def test_targets_lie_on_the_levels_and_keep_the_mean():
    likelihood = build(autoregressive(4, 0, 0, rounding="dynamic"), ImageShape(1, 1, 1))
    images = torch.full((100_000, 1, 1, 1), 0.2)
    target = likelihood.target(images, stream())
    # 0.2 lies between the levels -1/3 and 1/3: up with probability 0.8.
    torch.testing.assert_close(target.unique(), torch.tensor([-1 / 3, 1 / 3]))
    # A draw has a standard deviation of 2/3 sqrt(0.8 0.2) = 0.267.
    assert abs(target.mean().item() - 0.2) < 5 * 0.267 / math.sqrt(100_000)
    torch.testing.assert_close(likelihood.target(images, None)[0, 0, 0, 0].item(), 1 / 3)


def test_eight_bit_images_are_levels_already():
    likelihood = build(autoregressive(256, 0, 0, rounding="dynamic"), ImageShape(1, 16, 16))
    images = from_pixels(torch.arange(256).view(1, 1, 16, 16).to(torch.uint8))
    for seed in range(5):
        target = likelihood.target(images, stream(seed))
        torch.testing.assert_close(target, images, rtol=0, atol=1e-6)


def test_bits_per_dim_have_a_meaning_for_all_8_bit_levels_only():
    image = ImageShape(1, 2, 2)
    assert build(autoregressive(256, 1, 1), image).options.discretized
    assert not build(autoregressive(2, 1, 1), image).options.discretized


def test_a_context_that_no_layer_reaches_is_refused():
    with pytest.raises(ParamsError, match="context must be at most layers.*got 3 and 2"):
        build(autoregressive(2, 2, 3))


def nats_without_latents(context):
    """What images of constant rows cost a decoder that hears nothing of z, after training."""
    torch.manual_seed(0)
    likelihood = build(autoregressive(2, 2, context), ImageShape(1, 3, 5))
    silence = torch.zeros(64, likelihood.num_parameters, 3, 5)
    optimizer = torch.optim.Adam(likelihood.parameters(), lr=0.03)
    for _ in range(150):
        images = torch.randn(64, 1, 3, 1).sign().expand(64, 1, 3, 5).contiguous()
        loss = -likelihood.log_prob(images, silence).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return loss.item()


def test_what_lies_within_the_context_needs_no_latents():
    # Three rows, a bit each: 3 log 2 when neighbours are seen, 15 log 2 when they are not.
    assert nats_without_latents(context=1) == pytest.approx(3 * math.log(2), rel=0.1)
    assert nats_without_latents(context=0) == pytest.approx(15 * math.log(2), rel=0.1)
