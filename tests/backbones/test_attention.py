"""Patches: cut and painted in place, known by where they stand, each in view of all."""

import pytest
import torch

from stages.core.errors import ParamsError
from stages.core.shapes import ImageShape
from tests.backbones.examples import IMAGE, attention, build


def trained(values):
    """A backbone whose branches are not silent, as they are at the start."""
    torch.manual_seed(0)
    _, backbone = build(values)
    for parameter in backbone.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return backbone


def test_every_cell_sees_the_whole_image():
    backbone = trained(attention(patch=4, width=6, layers=1, decoder_layers=1, num_heads=2))
    images = torch.randn(1, *IMAGE, requires_grad=True)
    features = backbone.encoder(images)
    for row in range(2):
        for column in range(3):
            cell = features[0, :, row, column].square().sum()
            (gradient,) = torch.autograd.grad(cell, images, retain_graph=True)
            assert (gradient != 0).all()


def test_every_pixel_sees_every_cell():
    backbone = trained(attention(patch=4, width=6, layers=1, decoder_layers=1, num_heads=2))
    features = torch.randn(1, 6, 2, 3, requires_grad=True)
    for row, column in ((0, 0), (7, 5), (3, 11)):
        pixel = backbone.decoder(features)[0, :, row, column].square().sum()
        (gradient,) = torch.autograd.grad(pixel, features)
        assert (gradient != 0).all()


def test_without_decoder_layers_a_cell_paints_its_own_patch():
    backbone = trained(attention(patch=4, width=6, layers=1, decoder_layers=0, num_heads=2))
    features = torch.randn(1, 6, 2, 3)
    changed = features.clone()
    changed[:, :, 1, 2] += 1
    moved = (backbone.decoder(features) != backbone.decoder(changed))[0]
    expected = torch.zeros(8, 12, dtype=torch.bool)
    expected[4:, 8:] = True
    assert torch.equal(moved.all(dim=0), expected) and torch.equal(moved.any(dim=0), expected)


def test_equal_patches_at_different_places_are_told_apart():
    _, backbone = build(attention(patch=4, width=6, layers=1, decoder_layers=1, num_heads=2))
    cells = backbone.encoder(torch.ones(1, *IMAGE))[0].flatten(1)
    distances = torch.cdist(cells.T, cells.T) + torch.eye(6)
    assert distances.min() > 1e-2


def test_features_start_with_a_mean_square_of_one_whatever_the_depth():
    for layers in (1, 6):
        values = attention(patch=4, width=64, layers=layers, decoder_layers=1, num_heads=4)
        features = build(values)[1].encoder(torch.randn(4, *IMAGE))
        # Not a law of chance: the last norm makes it so, cell by cell.
        torch.testing.assert_close(features.square().mean(dim=1), torch.ones(4, 2, 3))


def test_an_image_that_does_not_divide_is_refused_with_what_must_hold():
    options, _ = build(attention(patch=4, width=6, layers=1, decoder_layers=1, num_heads=2))
    with pytest.raises(ParamsError, match=r"backbone.patch.*multiples of it; got 4.*8x14"):
        options.feature_shape(ImageShape(3, 8, 14))


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ParamsError, match="multiple of num_heads; got 6 and 4"):
        build(attention(patch=4, width=6, layers=1, decoder_layers=1, num_heads=4))
