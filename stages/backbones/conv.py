"""A convolutional encoder and a decoder that mirrors it, or a weaker one.

    encoder   per level: 4x4 convolution of stride 2, residual blocks
    decoder   per level, in reverse: residual blocks, doubling
    last      doubling to decoder_widths[0] / 4 maps, then a 3x3 convolution to the likelihood's
              parameters

The first level halves the image at once, so that nothing expensive runs at full resolution; the
last doubling keeps as many numbers as the level below it (four times the pixels, a quarter of the
maps), so that edges are drawn by a nonlinear layer at full resolution and cost little.

A decoder that can do without its latents will; one remedy against posterior collapse is to limit
it. Three parameters do: fewer maps, fewer blocks, and a smaller receptive field. With
decoder_kernel 1 only the doublings and the last convolution look sideways: over L levels a cell of
the grid then reaches 3 * 2^L rows and columns of pixels, its own 2^L and as many on either side.

After VQ-VAE (van den Oord et al. 2017, section 4.1). Differs: residual blocks stand on every
level, not on the smallest only; blocks start as the identity (stages/nn/residual.py); upsampling is
nearest or transposed, by choice.
"""

from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from stages.backbones.base import Backbone, BackboneOptions
from stages.core.errors import ParamsError
from stages.core.shapes import FeatureShape, Images, ImageShape
from stages.nn.convolution import AFTER_SILU, LINEAR, convolution
from stages.nn.residual import residual_blocks
from stages.nn.upsampling import Upsampling, upsampling

__all__ = ["Conv", "ConvOptions"]

# Not `Features`: its axis `width` is the number of maps, that of `Images` the number of columns.
Maps = Float[Tensor, "batch maps grid_height grid_width"]
Parameters = Float[Tensor, "batch parameters height width"]


class ConvOptions(BackboneOptions):
    """Parameters of the convolutional backbone."""

    kind: Literal["conv"]
    widths: tuple[Annotated[int, Field(ge=4)], ...] = Field(min_length=1)
    """Maps of each level, from the image inwards; every level halves height and width."""
    blocks: int = Field(ge=0)
    """Residual blocks per level of the encoder."""
    decoder_widths: tuple[Annotated[int, Field(ge=4)], ...]
    """Maps of each level of the decoder, from the image inwards too; empty: those of `widths`."""
    decoder_blocks: int = Field(ge=0)
    """Residual blocks per level of the decoder."""
    decoder_kernel: Literal[1, 3]
    """Rows and columns that the decoder's residual blocks see; 1: no neighbours."""
    upsampling: Upsampling
    """`nearest`: repeat, then convolve; `transposed`: free 4x4 kernels."""

    @model_validator(mode="after")
    def _levels_agree(self) -> "ConvOptions":
        if len(self.decoder_widths) not in (0, len(self.widths)):
            raise ValueError(
                f"decoder_widths must name the maps of as many levels as widths, "
                f"{len(self.widths)}, or be empty; got {len(self.decoder_widths)}"
            )
        return self

    def feature_shape(self, image: ImageShape) -> FeatureShape:
        """Grid of the innermost level.

        Raises:
            ParamsError: If height or width is no multiple of 2 ** levels.
        """
        levels = len(self.widths)
        factor = 2**levels
        if image.height % factor or image.width % factor:
            raise ParamsError(
                f"backbone.widths has {levels} levels, each halving the image: height and width "
                f"must be multiples of {factor}; the images are {image.height}x{image.width}; "
                "give fewer widths, or images of another size"
            )
        return FeatureShape(self.widths[-1], image.height // factor, image.width // factor)


class Conv(Backbone):
    """Strided convolutions in, doublings out, residual blocks between."""

    def __init__(self, options: ConvOptions, image: ImageShape, out_channels: int) -> None:
        super().__init__(options, image, out_channels)
        options.feature_shape(image)
        self.encoder = _Encoder(options, image.channels)
        self.decoder = _Decoder(options, out_channels)


class _Encoder(nn.Module):
    def __init__(self, options: ConvOptions, in_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = in_channels
        for width in options.widths:
            # Blocks leave their sum linear; without this, two levels would be one linear map.
            if layers:
                layers.append(nn.SiLU())
            gain = AFTER_SILU if layers else LINEAR
            layers.append(convolution(before, width, 4, stride=2, gain=gain))
            layers.extend(residual_blocks(width, options.blocks))
            before = width
        self.layers = nn.Sequential(*layers)

    def forward(self, images: Images) -> Maps:
        return self.layers(images)


class _Decoder(nn.Module):
    def __init__(self, options: ConvOptions, out_channels: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inwards = options.decoder_widths or options.widths
        if inwards[-1] != options.widths[-1]:
            layers.append(convolution(options.widths[-1], inwards[-1], 1, gain=LINEAR))
        full_resolution = inwards[0] // 4
        for width, after in zip(inwards[::-1], (*inwards[-2::-1], full_resolution), strict=True):
            layers.extend(residual_blocks(width, options.decoder_blocks, options.decoder_kernel))
            layers.append(nn.SiLU())
            layers.append(upsampling(options.upsampling, width, after))
        layers.append(nn.SiLU())
        # A small start: the first reconstructions are grey, not noise.
        layers.append(convolution(full_resolution, out_channels, 3, gain=0.1))
        self.layers = nn.Sequential(*layers)

    def forward(self, features: Maps) -> Parameters:
        return self.layers(features)
