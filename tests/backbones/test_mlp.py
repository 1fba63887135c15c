"""Fully connected backbone: the published sizes, the scale, no neighbourhood."""

import torch

from stages.core.shapes import ImageShape
from tests.backbones.examples import build


def test_the_published_network_has_its_number_of_weights():
    options, backbone = build({"kind": "mlp", "widths": [300, 300]}, ImageShape(1, 28, 28), 1)
    assert options.feature_shape(ImageShape(1, 28, 28)) == (300, 1, 1)
    # Values and gates of 784 -> 300 -> 300, weights and biases; the decoder's first layer takes the
    # bottleneck's 300 numbers, then 300 -> 784.
    encoder = 2 * (784 * 300 + 300) + 2 * (300 * 300 + 300)
    decoder = 4 * (300 * 300 + 300) + 300 * 784 + 784
    assert sum(p.numel() for p in backbone.encoder.parameters()) == encoder
    assert sum(p.numel() for p in backbone.decoder.parameters()) == decoder


def test_the_decoder_has_the_widths_reversed():
    _, backbone = build({"kind": "mlp", "widths": [11, 5]})
    shapes = [tuple(p.shape) for p in backbone.decoder.parameters() if p.ndim == 2]
    assert shapes == [(10, 5), (22, 5), (7 * 8 * 12, 11)]


def test_features_keep_the_scale_of_images_at_any_depth():
    torch.manual_seed(0)
    image = ImageShape(1, 12, 10)
    for depth in (1, 4):
        values = {"kind": "mlp", "widths": [400] * depth}
        features = build(values, image)[1].encoder(torch.randn(64, *image))
        assert 0.7 < features.square().mean().item() < 1.4


def test_pixels_may_stand_in_any_order():
    torch.manual_seed(0)
    image = ImageShape(2, 3, 4)
    _, backbone = build({"kind": "mlp", "widths": [9]}, image)
    order = torch.randperm(image.dims)
    images = torch.randn(5, *image)
    expected = backbone.encoder(images)
    first = backbone.encoder.layers[0].project
    first.weight.data = first.weight.data[:, order]
    shuffled = images.flatten(1)[:, order].view_as(images)
    torch.testing.assert_close(backbone.encoder(shuffled), expected)
