"""Patches and convolutions: what a cell reaches, images side by side, clear refusals."""

import pytest
import torch
import torch.nn.functional as F

from stages.backbones.patch_conv import _cells
from stages.core.errors import ParamsError
from stages.core.shapes import ImageShape
from tests.backbones.examples import IMAGE, build, patch_conv

# As many as lie side by side, and twice that.
BATCHES = [32, 64]


def trained(values, image=IMAGE):
    """A backbone whose blocks are not silent, as they are at the start; in float64."""
    torch.manual_seed(0)
    _, backbone = build(values, image)
    for parameter in backbone.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return backbone.double()


def gradients(backbone, loss):
    return torch.autograd.grad(loss, list(backbone.parameters()))


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("blocks", [0, 2])
def test_images_side_by_side_give_what_each_gives_alone(batch, blocks):
    backbone = trained(patch_conv(patch=2, width=5, feature_width=3, blocks=blocks))
    images = torch.randn(batch, *IMAGE, dtype=torch.float64)

    def passed(part):
        features = backbone.encoder(part)
        return features, backbone.decoder(features)

    features, painted = passed(images)
    # Batches that do not divide are passed image by image.
    alone = [passed(part) for part in images.split(7)]
    torch.testing.assert_close(features, torch.cat([one for one, _ in alone]))
    torch.testing.assert_close(painted, torch.cat([one for _, one in alone]))
    together = gradients(backbone, painted.square().sum())
    apart = gradients(backbone, sum(one.square().sum() for _, one in alone))
    for found, expected in zip(together, apart, strict=True):
        torch.testing.assert_close(found, expected)


def test_images_lie_side_by_side_only_where_gradients_are_wanted():
    images = torch.randn(64, *IMAGE)
    assert _cells(images, 2).shape == (2, 12, 4, 6, 32)
    with torch.no_grad():
        assert _cells(images, 2).shape == (64, 12, 4, 6, 1)


@pytest.mark.parametrize("batch", [1, 32])
def test_without_blocks_it_is_two_convolutions_over_unshuffled_patches(batch):
    values = patch_conv(patch=2, width=5, feature_width=3, blocks=0)
    backbone = trained(values)
    first, _, last = backbone.encoder.layers
    images = torch.randn(batch, *IMAGE, dtype=torch.float64)
    # The numbers of a patch stand in the order row, column, channel; PyTorch's start with channels.
    patches = F.pixel_unshuffle(images, 2).unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2)
    hidden = F.conv2d(patches, first.weight, first.bias, padding=1).relu()
    expected = F.conv2d(hidden, last.weight, last.bias, padding=1)
    torch.testing.assert_close(backbone.encoder(images), expected)

    first, _, last = backbone.decoder.layers
    hidden = F.conv2d(expected, first.weight, first.bias, padding=1).relu()
    numbers = F.conv2d(hidden, last.weight, last.bias, padding=1)
    painted = F.pixel_shuffle(numbers.unflatten(1, (4, 7)).transpose(1, 2).flatten(1, 2), 2)
    torch.testing.assert_close(backbone.decoder(expected), painted)


@pytest.mark.parametrize("blocks", [0, 1])
def test_a_cell_reaches_as_many_patches_on_either_side_as_there_are_convolutions(blocks):
    image = ImageShape(1, 18, 22)
    values = patch_conv(patch=2, width=6, feature_width=4, blocks=blocks)
    decoder = trained(values, image).decoder
    features = torch.randn(1, 4, 9, 11, dtype=torch.float64)
    changed = features.clone()
    changed[:, :, 4, 5] += 1
    moved = (decoder(features) != decoder(changed)).any(dim=1)[0]
    reach = 2 + blocks
    rows, columns = moved.any(dim=1).nonzero().flatten(), moved.any(dim=0).nonzero().flatten()
    assert rows.tolist() == list(range(2 * (4 - reach), 2 * (5 + reach)))
    assert columns.tolist() == list(range(2 * (5 - reach), 2 * (6 + reach)))


def test_features_keep_the_scale_of_images_at_any_depth():
    torch.manual_seed(0)
    for blocks in (0, 6):
        values = patch_conv(patch=4, width=64, feature_width=32, blocks=blocks)
        features = build(values)[1].encoder(torch.randn(8, *IMAGE))
        assert 0.5 < features.std().item() < 1.5


def test_an_image_that_does_not_divide_is_refused_with_what_must_hold():
    options, _ = build(patch_conv(patch=4, width=6, feature_width=3, blocks=0))
    with pytest.raises(ParamsError, match=r"backbone.patch.*multiples of it; got 4.*8x14"):
        options.feature_shape(ImageShape(3, 8, 14))
