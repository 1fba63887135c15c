"""The one rule between 8-bit pixels and model intensities.

x = v / 127.5 - 1            v in 0..255  ->  x in [-1, 1]
v = round((x + 1) * 127.5)   clamped; halves to even, as torch and NumPy both do
"""

import torch

from stages.core.shapes import Images, Pixels

__all__ = ["ROUNDING_RULE", "from_pixels", "to_pixels"]

ROUNDING_RULE = "round((x + 1) * 127.5), halves to even, clamped to 0..255"


def from_pixels(pixels: Pixels) -> Images:
    """8-bit pixels to float32 intensities in [-1, 1]."""
    return pixels.float() / 127.5 - 1.0


def to_pixels(images: Images) -> Pixels:
    """Intensities to 8-bit pixels; values outside [-1, 1] are clamped."""
    return ((images.float() + 1.0) * 127.5).round().clamp(0, 255).to(torch.uint8)
