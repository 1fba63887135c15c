"""Laws of every backbone: shapes that mirror, gradients everywhere, clear refusals."""

from pathlib import Path

import pytest
import torch

import stages.backbones
from stages.backbones.base import Backbone, BackboneOptions
from stages.core.errors import ParamsError
from stages.core.sections import load_member, validate
from stages.core.shapes import ImageShape

IMAGE = ImageShape(3, 8, 12)
OPTIONS = {
    "conv": [
        {"kind": "conv", "widths": widths, "blocks": blocks, "upsampling": upsampling}
        for widths, blocks, upsampling in (
            ([8], 0, "nearest"),
            ([8, 10], 1, "transposed"),
            ([8, 10], 2, "nearest"),
        )
    ]
}
CASES = [options for member in OPTIONS.values() for options in member]


def build(values, image=IMAGE, out_channels=7):
    options = validate(BackboneOptions.of_kind(values["kind"]), values, source="test")
    return options, load_member(Backbone, values["kind"])(options, image, out_channels)


def test_every_member_is_tried():
    files = Path(stages.backbones.__path__[0]).glob("*.py")
    assert {file.stem for file in files} - {"__init__", "base"} == set(OPTIONS)


@pytest.mark.parametrize("values", CASES, ids=str)
def test_features_have_the_promised_shape_and_the_decoder_mirrors_it(values):
    options, backbone = build(values)
    images = torch.rand(2, *IMAGE) * 2 - 1
    features = backbone.encoder(images)
    assert tuple(features.shape[1:]) == options.feature_shape(IMAGE)
    assert backbone.decoder(features).shape == (2, 7, IMAGE.height, IMAGE.width)


@pytest.mark.parametrize("values", CASES, ids=str)
def test_every_parameter_gets_a_finite_gradient(values):
    _, backbone = build(values)
    backbone.decoder(backbone.encoder(torch.randn(2, *IMAGE))).square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("values", CASES, ids=str)
def test_images_of_a_batch_do_not_see_each_other(values):
    _, backbone = build(values)
    images = torch.randn(3, *IMAGE)
    together = backbone.decoder(backbone.encoder(images))
    alone = backbone.decoder(backbone.encoder(images[1:2]))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


def test_an_image_that_does_not_divide_is_refused_with_what_must_hold():
    options, _ = build({"kind": "conv", "widths": [8, 10], "blocks": 0, "upsampling": "nearest"})
    with pytest.raises(ParamsError, match=r"2 levels.*multiples of 4.*8x14"):
        options.feature_shape(ImageShape(3, 8, 14))


def test_features_keep_the_scale_of_images_at_any_number_of_levels():
    torch.manual_seed(0)
    image = ImageShape(3, 64, 64)
    for levels in (1, 3, 5):
        values = {"kind": "conv", "widths": [32] * levels, "blocks": 2, "upsampling": "nearest"}
        features = build(values, image)[1].encoder(torch.randn(4, *image))
        assert 0.3 < features.std().item() < 2.0
