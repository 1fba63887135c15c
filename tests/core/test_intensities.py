"""The rule between pixels and intensities."""

import torch

from stages.core.intensities import from_pixels, to_pixels


def test_every_pixel_value_survives_the_round_trip():
    pixels = torch.arange(256, dtype=torch.uint8).reshape(2, 1, 8, 16)
    images = from_pixels(pixels)
    assert images.min() == -1 and images.max() == 1
    assert torch.equal(to_pixels(images), pixels)


def test_values_outside_are_clamped():
    images = torch.tensor([-3.0, 3.0]).reshape(1, 1, 1, 2)
    assert to_pixels(images).flatten().tolist() == [0, 255]
