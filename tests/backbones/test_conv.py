"""Convolutional backbone: scale, the limits of its decoder, clear refusals."""

import pytest
import torch

from stages.core.errors import ParamsError
from stages.core.shapes import ImageShape
from tests.backbones.examples import build, conv


def test_features_keep_the_scale_of_images_at_any_number_of_levels():
    torch.manual_seed(0)
    image = ImageShape(3, 64, 64)
    for levels in (1, 3, 5):
        features = build(conv([32] * levels, 2), image)[1].encoder(torch.randn(4, *image))
        assert 0.3 < features.std().item() < 2.0


def test_an_image_that_does_not_divide_is_refused_with_what_must_hold():
    options, _ = build(conv([8, 10], 0))
    with pytest.raises(ParamsError, match=r"2 levels.*multiples of 4.*8x14"):
        options.feature_shape(ImageShape(3, 8, 14))


def test_a_decoder_of_other_levels_is_refused_with_what_must_hold():
    with pytest.raises(ParamsError, match=r"decoder_widths.*as many levels.*2, or be empty.*got 3"):
        build(conv([8, 10], 0, decoder_widths=[8, 8, 8]))


def test_no_decoder_widths_are_those_of_the_encoder():
    networks = []
    for decoder_widths in ([], [8, 10]):
        torch.manual_seed(0)
        networks.append(build(conv([8, 10], 1, decoder_widths=decoder_widths))[1].state_dict())
    mirrored, named = networks
    assert mirrored.keys() == named.keys()
    assert all(torch.equal(mirrored[name], named[name]) for name in mirrored)


def test_limits_weaken_the_decoder_only():
    def sizes(**limits):
        _, backbone = build(conv([16, 24], 2, **limits))
        return [
            sum(p.numel() for p in part.parameters())
            for part in (backbone.encoder, backbone.decoder)
        ]

    encoder, decoder = sizes()
    for limits in (
        {"decoder_widths": [8, 12]},
        {"decoder_widths": [16, 12]},
        {"decoder_blocks": 0},
        {"decoder_kernel": 1},
    ):
        limited = sizes(**limits)
        assert limited[0] == encoder and limited[1] < decoder, limits


@pytest.mark.parametrize("upsampling", ["nearest", "transposed"])
@pytest.mark.parametrize(("levels", "blocks"), [(1, 2), (2, 0), (2, 3)])
def test_without_neighbours_a_cell_reaches_three_times_its_patch(levels, blocks, upsampling):
    torch.manual_seed(0)
    side = 5 * 2**levels
    image = ImageShape(1, side, side + 2**levels)
    values = conv([8] * levels, blocks, upsampling, decoder_kernel=1)
    _, backbone = build(values, image, out_channels=2)
    rows, columns = _reach(backbone.decoder, image, levels)
    own = 2**levels
    # The cell at row 2, column 3 of the grid: its own patch, and as much on either side.
    assert rows == (own, 4 * own) and columns == (2 * own, 5 * own)


def test_neighbours_widen_the_reach():
    torch.manual_seed(0)
    image = ImageShape(1, 20, 24)
    _, backbone = build(conv([8, 8], 1), image, out_channels=2)
    rows, columns = _reach(backbone.decoder, image, 2)
    # A block on the grid adds a cell (4 pixels) each way, one on the middle level 2 pixels.
    assert rows == (0, 20) and columns == (2, 24)


def _reach(decoder, image, levels):
    """Half-open ranges of rows and columns that change with the cell at row 2, column 3."""
    # In float64, where no fast convolution lets neighbours touch each other's rounding.
    decoder = decoder.double()
    for parameter in decoder.parameters():
        # Blocks start silent; a trained one is not.
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    grid = (image.height // 2**levels, image.width // 2**levels)
    features = torch.randn(1, 8, *grid, dtype=torch.float64)
    changed = features.clone()
    changed[:, :, 2, 3] += 1
    moved = (decoder(features) != decoder(changed)).any(dim=1)[0]
    rows, columns = moved.any(dim=1).nonzero(), moved.any(dim=0).nonzero()
    return tuple((places.min().item(), places.max().item() + 1) for places in (rows, columns))
