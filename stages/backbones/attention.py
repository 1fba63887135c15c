"""Patches and transformers: every cell of the latent grid sees the whole image.

    encoder   patch embedding + place -> transformer -> features, one cell per patch
    decoder   features + place -> transformer -> the pixels of each patch

The image is cut into squares, each mapped linearly to a vector (Vision Transformer, Dosovitskiy et
al. 2020, arXiv:2010.11929, Eq. 1); the decoder mirrors it and maps each vector back to a square of
pixels (ViT-VQGAN, Yu et al. 2021, arXiv:2110.04627, section 3.1). All work is done on the small
grid, in matrix products that accelerators like; attention costs the square of the number of
patches.

Differs: places are learned per row and per column and added; the last layer is linear, without a
tanh layer in between; stages/nn/bidirectional.py says what differs inside. Patches are painted side
by side without overlap: with little training, seams show where `conv` would blur.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from stages.backbones.base import Backbone, BackboneOptions
from stages.core.shapes import FeatureShape, Images, ImageShape
from stages.nn.bidirectional import BidirectionalTransformer
from stages.nn.convolution import LINEAR, convolution
from stages.nn.patch_options import PatchOptions

__all__ = ["Attention", "AttentionOptions"]

# Not `Features`: its axis `width` is the number of maps, that of `Images` the number of columns.
Maps = Float[Tensor, "batch maps grid_height grid_width"]
Parameters = Float[Tensor, "batch parameters height width"]

# Row and column together start with half the mean square of what stands in the cell.
_PLACE_STD = 0.5


class AttentionOptions(PatchOptions, BackboneOptions):
    """Parameters of the transformer backbone."""

    kind: Literal["attention"]
    width: int = Field(ge=1)
    """Of the residual stream and of the features; a multiple of `num_heads`."""
    layers: int = Field(ge=1)
    """Blocks of the encoder."""
    decoder_layers: int = Field(ge=0)
    """Blocks of the decoder; 0: every patch is painted from its own cell alone."""
    num_heads: int = Field(ge=1)

    @model_validator(mode="after")
    def _heads_divide_width(self) -> "AttentionOptions":
        if self.width % self.num_heads:
            raise ValueError(
                f"width must be a multiple of num_heads; got {self.width} and {self.num_heads}"
            )
        return self

    def feature_shape(self, image: ImageShape) -> FeatureShape:
        """One cell per patch.

        Raises:
            ParamsError: If height or width is no multiple of `patch`.
        """
        return self.cells(self.width, image)


class Attention(Backbone):
    """A transformer over patches, and one back."""

    def __init__(self, options: AttentionOptions, image: ImageShape, out_channels: int) -> None:
        super().__init__(options, image, out_channels)
        features = options.feature_shape(image)
        self.encoder = _Encoder(options, features, image.channels)
        self.decoder = _Decoder(options, features, out_channels)


class _Encoder(nn.Module):
    def __init__(self, options: AttentionOptions, features: FeatureShape, channels: int) -> None:
        super().__init__()
        self.embed = convolution(
            channels, options.width, options.patch, stride=options.patch, gain=LINEAR
        )
        self.attend = _GridTransformer(options.layers, features, options.num_heads)

    def forward(self, images: Images) -> Maps:
        return self.attend(self.embed(images))


class _Decoder(nn.Module):
    def __init__(
        self, options: AttentionOptions, features: FeatureShape, out_channels: int
    ) -> None:
        super().__init__()
        self.patch = options.patch
        self.attend = _GridTransformer(options.decoder_layers, features, options.num_heads)
        # A small start: the first reconstructions are grey, not noise.
        self.paint = convolution(options.width, out_channels * options.patch**2, 1, gain=0.1)

    def forward(self, features: Maps) -> Parameters:
        return F.pixel_shuffle(self.paint(self.attend(features)), self.patch)


class _GridTransformer(nn.Module):
    """A transformer over the cells of a grid, which it tells where they stand."""

    def __init__(self, layers: int, features: FeatureShape, num_heads: int) -> None:
        super().__init__()
        width, rows, columns = features
        self.row_place = nn.Parameter(_PLACE_STD * torch.randn(width, rows, 1))
        self.column_place = nn.Parameter(_PLACE_STD * torch.randn(width, 1, columns))
        self.transformer = BidirectionalTransformer(layers, width, num_heads)

    def forward(self, maps: Maps) -> Maps:
        placed = maps + self.row_place + self.column_place
        tokens = self.transformer(placed.flatten(2).mT)
        return tokens.mT.unflatten(2, maps.shape[2:])
