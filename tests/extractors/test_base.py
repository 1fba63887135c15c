"""The resize rule and the scaling of pixels."""

import pytest
import torch

from stages.core.shapes import ImageShape
from stages.extractors.base import PixelRule, Preparation

PLAIN = Preparation((3, 2), (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def test_images_of_the_right_size_are_only_scaled():
    pixels = torch.arange(2 * 3 * 3 * 2).reshape(2, 3, 3, 2).to(torch.uint8) * 7
    torch.testing.assert_close(PLAIN(pixels), pixels.float() / 255)
    assert PLAIN.rule(ImageShape(3, 3, 2)).resize == "none"


def test_channels_are_normalised_each_by_its_own():
    seen = Preparation(None, (0.1, 0.2, 0.3), (0.5, 1.0, 2.0))(
        torch.full((1, 3, 4, 5), 51, dtype=torch.uint8)
    )
    assert seen[0, :, 2, 3].tolist() == pytest.approx([0.2, 0.0, -0.05], abs=1e-6)


def test_shrinking_looks_at_every_pixel():
    # Without antialias a fifth as large would see only some columns of a fine grating.
    pixels = torch.zeros(1, 3, 15, 20, dtype=torch.uint8)
    pixels[..., ::2] = 200
    seen = PLAIN(pixels)
    assert seen.shape == (1, 3, 3, 2)
    torch.testing.assert_close(seen, torch.full_like(seen, 100 / 255), rtol=0.05, atol=0)
    assert PLAIN.rule(ImageShape(1, 15, 20)) == PixelRule(
        resize="bilinear, 15x20 to 3x2, on float32, not rounded",
        antialias=True,
        values="v / 255, then mean (0.0, 0.0, 0.0) and deviation (1.0, 1.0, 1.0) of each channel",
        grey="repeated to three channels",
    )
