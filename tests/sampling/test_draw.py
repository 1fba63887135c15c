"""Image i depends on (seed, i) only."""

import dataclasses

import numpy as np
import pytest
import torch

from stages.bottlenecks.base import LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import validate
from stages.heads.categorical import CategoricalOptions
from stages.heads.mixture import MixtureOptions
from stages.priors.transformer import TransformerOptions, TransformerPrior
from stages.priors.uniform import UniformOptions, UniformPrior
from stages.sampling.draw import GROUP, Sampler, uniforms_of_images
from stages.sampling.options import (
    LARGEST_GUIDANCE,
    LARGEST_TEMPERATURE,
    LEAST_TEMPERATURE,
    SamplingOptions,
)
from tests.priors.sections import TRANSFORMER

OPTIONS = {
    "count": 10,
    "seed": 3,
    "classes": [],
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "pixels": "mean",
    "guidance": 1.5,
    "batch_size": 4,
    "min_p": 0.0,
    "variance_temperature": 1.0,
    "guidance_schedule": "constant",
    "guidance_power": 1.0,
    "guidance_interval": [0.0, 1.0],
    "rejection_tries": 1,
    "rejection_threshold": 1.0,
    "compile": False,
    "precision": "float32",
}
CPU = torch.device("cpu")


def options(**changes):
    return validate(SamplingOptions, OPTIONS | changes, source="params.yaml")


def prior(stored="codes", num_classes=3):
    torch.manual_seed(0)
    spec = {
        "codes": LatentSpec("codes", 2, 3, num_codes=5),
        "continuous": LatentSpec("continuous", 2, 3, channels=4),
    }[stored]
    head = {
        "codes": CategoricalOptions(kind="categorical", tied=False),
        "continuous": MixtureOptions(
            kind="mixture", components=3, std_floor=0.1, guidance_candidates=4
        ),
    }[stored]
    network = TransformerPrior(
        TransformerOptions(**TRANSFORMER),
        head,
        spec,
        num_classes,
    )
    for parameter in network.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return network.eval()


def decode(latents, labels, indices):
    """Any function of each image's own latents will do: 1 channel, 2 x 3 pixels."""
    numbers = latents.float().reshape(len(latents), -1, 2, 3).mean(dim=1, keepdim=True)
    return (numbers * 40).round().clamp(0, 255).to(torch.uint8)


def sampler(stored="codes", **changes):
    return Sampler(prior(stored), decode, options(**changes), CPU)


def fields(drawn):
    return [getattr(drawn, field.name) for field in dataclasses.fields(drawn)]


@pytest.mark.parametrize("stored", ["codes", "continuous"])
def test_images_do_not_depend_on_the_batch_they_are_drawn_in(stored):
    draws = sampler(stored)
    count = GROUP + 7
    whole = fields(draws.draw(0, count))
    assert [len(values) for values in whole] == [count] * 6
    for batch_size in (1, 3, 7):
        for start in (0, 5, GROUP - 1, GROUP):
            part = fields(draws.draw(start, min(start + batch_size, count)))
            for all_of, some in zip(whole, part, strict=True):
                np.testing.assert_array_equal(some, all_of[start : start + len(some)])


@pytest.mark.parametrize("temperature", [LEAST_TEMPERATURE, LARGEST_TEMPERATURE])
@pytest.mark.parametrize("guidance", [0.0, LARGEST_GUIDANCE])
@pytest.mark.parametrize("stored", ["codes", "continuous"])
def test_there_is_something_to_draw_wherever_settings_may_go(stored, guidance, temperature):
    changes = {} if stored == "codes" else {"variance_temperature": temperature}
    drawn = sampler(stored, guidance=guidance, temperature=temperature, **changes).draw(0, 5)
    assert np.isfinite(drawn.latents).all()


def test_images_depend_on_the_seed_and_differ_from_each_other():
    codes = sampler(guidance=1.0).draw(0, GROUP).latents
    assert len(np.unique(codes.reshape(GROUP, -1), axis=0)) > GROUP // 2
    assert not np.array_equal(codes, sampler(guidance=1.0, seed=4).draw(0, GROUP).latents)


def test_uniform_numbers_come_from_the_stream_of_the_image():
    together = uniforms_of_images(7, np.array([4, 9, 2]), (5, 3))
    alone = uniforms_of_images(7, np.array([9]), (5, 3))
    np.testing.assert_array_equal(together[1], alone[0])
    assert together.dtype == np.float32 and together.min() > 0 and together.max() < 1
    many = uniforms_of_images(7, np.arange(200), (10, 5))
    # The mean of 10,000 uniforms within four standard errors: fails once in 16,000 seeds.
    assert many.mean() == pytest.approx(0.5, abs=4 * (1 / 12 / many.size) ** 0.5)


def test_classes_are_drawn_in_turn():
    assert sampler().draw(0, 7).labels.tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert sampler(classes=[2, 0]).draw(3, 6).labels.tolist() == [0, 2, 0]
    alone = Sampler(prior(num_classes=0), decode, options(guidance=1.0), CPU)
    assert alone.draw(0, 3).labels.tolist() == [-1, -1, -1]


def test_log_probability_is_the_prior_s_own_whatever_the_settings():
    draws = sampler(temperature=0.7, top_k=3, guidance=2.0)
    drawn = draws.draw(0, 5)
    expected = draws.prior.log_prob(torch.from_numpy(drawn.latents), torch.from_numpy(drawn.labels))
    np.testing.assert_allclose(drawn.log_probability, expected.detach(), rtol=1e-5)


@pytest.mark.parametrize(
    ("changes", "num_classes", "message"),
    [
        ({"classes": [0, 3]}, 3, r"sampling.classes: must be classes from 0 to 2; got \[3\]"),
        ({"classes": [1]}, 0, r"sampling.classes: must be \[\] for a prior without classes"),
        ({}, 0, "sampling.guidance: must be 1 for a prior without classes; got 1.5"),
    ],
)
def test_classes_that_are_not_there_are_refused(changes, num_classes, message):
    with pytest.raises(ParamsError, match=message):
        Sampler(prior(num_classes=num_classes), decode, options(**changes), CPU)


@pytest.mark.parametrize(
    "changes",
    [
        {"temperature": 0.0},
        {"top_k": -1},
        {"top_p": 0.0},
        {"top_p": 1.1},
        {"guidance": -0.5},
        {"count": 0},
        {"batch_size": 0},
    ],
)
def test_settings_out_of_range_are_refused(changes):
    [name] = changes
    with pytest.raises(ParamsError, match=f"params.yaml: {name}: "):
        options(**changes)


def test_a_prior_that_knows_no_classes_draws_without_them():
    uniform = UniformPrior(
        UniformOptions(kind="uniform"),
        CategoricalOptions(kind="categorical", tied=False),
        LatentSpec("codes", 2, 3, num_codes=5),
        num_classes=3,
    )
    drawn = Sampler(uniform, decode, options(guidance=1.0), CPU).draw(0, 4)
    assert drawn.labels.tolist() == [-1] * 4
