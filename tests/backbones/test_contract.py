"""Laws of every backbone: shapes that lead back, gradients everywhere."""

from pathlib import Path

import pytest
import torch

import stages.backbones
from tests.backbones.examples import EXAMPLES, IMAGE, build

every_example = pytest.mark.parametrize("values", EXAMPLES, ids=str)


def test_every_member_has_an_example():
    files = Path(stages.backbones.__path__[0]).glob("*.py")
    assert {file.stem for file in files} - {"__init__", "base"} == {v["kind"] for v in EXAMPLES}


@every_example
def test_features_have_the_promised_shape_and_the_decoder_leads_back(values):
    options, backbone = build(values)
    images = torch.rand(2, *IMAGE) * 2 - 1
    features = backbone.encoder(images)
    assert tuple(features.shape[1:]) == options.feature_shape(IMAGE)
    assert backbone.decoder(features).shape == (2, 7, IMAGE.height, IMAGE.width)


@every_example
def test_every_parameter_gets_a_finite_gradient(values):
    _, backbone = build(values)
    backbone.decoder(backbone.encoder(torch.randn(2, *IMAGE))).square().sum().backward()
    for name, parameter in backbone.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


@every_example
def test_a_few_steps_reach_every_parameter(values):
    torch.manual_seed(0)
    _, backbone = build(values)
    before = {name: value.clone() for name, value in backbone.named_parameters()}
    optimizer = torch.optim.Adam(backbone.parameters(), lr=0.01)
    for _ in range(3):
        optimizer.zero_grad()
        (backbone.decoder(backbone.encoder(torch.randn(2, *IMAGE))) - 1).square().mean().backward()
        optimizer.step()
    still = [n for n, value in backbone.named_parameters() if torch.equal(before[n], value)]
    assert not still


@every_example
def test_images_of_a_batch_do_not_see_each_other(values):
    _, backbone = build(values)
    images = torch.randn(3, *IMAGE)
    together = backbone.decoder(backbone.encoder(images))
    alone = backbone.decoder(backbone.encoder(images[1:2]))
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=1e-4)


@every_example
def test_first_reconstructions_are_grey(values):
    torch.manual_seed(0)
    _, backbone = build(values)
    assert backbone.decoder(backbone.encoder(torch.randn(8, *IMAGE))).std() < 0.3
