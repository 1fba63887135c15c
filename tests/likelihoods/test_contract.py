"""Laws of every likelihood, found by listing the files of the family."""

from pathlib import Path

import pytest
import torch

import stages.likelihoods
from stages.core.errors import ParamsError
from stages.core.intensities import from_pixels, to_pixels
from tests.likelihoods.examples import EXAMPLES, IMAGE, build

every_example = pytest.mark.parametrize("values", EXAMPLES, ids=str)


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def some_images(batch=5):
    pixels = torch.randint(256, (batch, *IMAGE), generator=stream()).to(torch.uint8)
    return from_pixels(pixels)


def some_parameters(likelihood, batch=5):
    return torch.randn(
        batch, likelihood.num_parameters, IMAGE.height, IMAGE.width, generator=stream(1)
    )


def test_every_member_has_an_example():
    files = Path(stages.likelihoods.__path__[0]).glob("*.py")
    assert {file.stem for file in files} - {"__init__", "base"} == {v["kind"] for v in EXAMPLES}


@every_example
def test_shapes_and_ranges(values):
    likelihood = build(values)
    images, parameters = some_images(), some_parameters(likelihood)
    target = likelihood.target(images, stream())
    assert likelihood.log_prob(target, parameters).shape == (5,)
    for result in (target, likelihood.mean(parameters), likelihood.sample(parameters, stream())):
        assert result.shape == images.shape and result.dtype == torch.float32
        assert result.abs().max() <= 1 + 1e-6


@pytest.mark.parametrize("values", [v for v in EXAMPLES if "value" in v], ids=str)
def test_the_widest_is_a_number_and_wider_ones_are_refused(values):
    likelihood = build(values | {"value": 100.0}).eval()
    target = likelihood.target(some_images(), None)
    assert likelihood.log_prob(target, some_parameters(likelihood)).isfinite().all()
    with pytest.raises(ParamsError, match="value: Input should be less than or equal to 100"):
        build(values | {"value": 1e200})


@every_example
def test_log_probabilities_are_of_each_image_alone(values):
    likelihood = build(values).eval()
    target = likelihood.target(some_images(), None)
    parameters = some_parameters(likelihood)
    together = likelihood.log_prob(target, parameters)
    alone = likelihood.log_prob(target[3:4], parameters[3:4])
    torch.testing.assert_close(together[3:4], alone)


@every_example
def test_gradients_are_finite_even_far_out(values):
    likelihood = build(values)
    target = likelihood.target(some_images(), None)
    for size in (1.0, 30.0, 1e4):
        parameters = (size * some_parameters(likelihood)).requires_grad_()
        log_prob = likelihood.log_prob(target, parameters).sum()
        log_prob.backward()
        assert log_prob.isfinite() and parameters.grad.isfinite().all()


@every_example
def test_computes_in_float32_from_bfloat16_parameters(values):
    likelihood = build(values).eval()
    target = likelihood.target(some_images(), None)
    parameters = some_parameters(likelihood).bfloat16()
    exact = likelihood.log_prob(target, parameters.float())
    torch.testing.assert_close(likelihood.log_prob(target, parameters), exact)
    assert likelihood.mean(parameters).dtype == torch.float32


@every_example
def test_a_target_is_its_own_target(values):
    likelihood = build(values)
    target = likelihood.target(some_images(), stream(4))
    for later in (stream(5), None):
        torch.testing.assert_close(likelihood.target(target, later), target, rtol=0, atol=1e-6)


@every_example
def test_targets_are_drawn_from_the_stream_in_evaluation_mode_too(values):
    likelihood, images = build(values), some_images()
    training = likelihood.train().target(images, stream(4))
    assert torch.equal(likelihood.eval().target(images, stream(4)), training)


@every_example
def test_the_mean_is_the_mean_of_the_draws(values):
    likelihood = build(values).eval()
    if values.get("layers") or values.get("channels") == "linear":
        pytest.skip("its mean is another thing, and says so")
    one = 0.3 * some_parameters(likelihood, batch=1)
    many = one.expand(4000, -1, -1, -1)
    draws = likelihood.sample(many, stream(2))
    mean, error = draws.mean(dim=0), draws.std(dim=0) / 4000**0.5
    # Five standard errors, and for densities what clamping to [-1, 1] takes from their draws.
    clamped = 0.02 if values["kind"] in ("gaussian", "laplace") else 0.002
    assert ((mean - likelihood.mean(one)[0]).abs() < 5 * error + clamped).all()


@every_example
def test_a_draw_is_a_function_of_its_stream(values):
    likelihood = build(values)
    parameters = some_parameters(likelihood)
    assert torch.equal(
        likelihood.sample(parameters, stream(3)), likelihood.sample(parameters, stream(3))
    )


@every_example
def test_discretized_means_draws_on_the_8_bit_grid(values):
    likelihood = build(values)
    if likelihood.options.discretized:
        draws = likelihood.sample(some_parameters(likelihood), stream())
        torch.testing.assert_close(from_pixels(to_pixels(draws)), draws)
