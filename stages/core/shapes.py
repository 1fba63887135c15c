"""The axes of every tensor that crosses a module boundary, as types.

    batch                     images in this call
    channels height width     of an image
    grid_height grid_width    of the latent grid
    maps                      of features: the width of a level of a backbone
    dim                       of a codebook vector
    tokens                    grid_height * grid_width, raster order

jaxtyping aliases are checked by beartype in every test run and cost nothing in production.
"""

from typing import NamedTuple

from jaxtyping import Float, Int, UInt8
from torch import Tensor

__all__ = ["Codes", "FeatureShape", "Features", "ImageShape", "Images", "Labels", "Nats", "Pixels"]

Images = Float[Tensor, "batch channels height width"]
"""Intensities in [-1, 1]."""
Pixels = UInt8[Tensor, "batch channels height width"]
"""Intensities in [0, 255], as on disk."""
Features = Float[Tensor, "batch maps grid_height grid_width"]
Codes = Int[Tensor, "batch grid_height grid_width"]
Labels = Int[Tensor, " batch"]
Nats = Float[Tensor, " batch"]


class ImageShape(NamedTuple):
    """Shape of one image."""

    channels: int
    height: int
    width: int

    @property
    def dims(self) -> int:
        """Number of intensities in one image: D in every formula."""
        return self.channels * self.height * self.width


class FeatureShape(NamedTuple):
    """Shape of the encoder's output for one image: what a bottleneck takes and gives back."""

    width: int
    grid_height: int
    grid_width: int
