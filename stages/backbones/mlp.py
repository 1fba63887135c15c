"""Gated fully connected layers: the backbone of the published 40-latent figures.

    encoder   image -> gated layers of widths[0], widths[1], ... numbers -> one cell of features
    decoder   the cell -> gated layers of ..., widths[1], widths[0] -> linear -> the image

With widths [300, 300], a Gaussian bottleneck of 40 numbers and the Bernoulli likelihood this is the
VAE of the VampPrior (Tomczak & Welling 2018, arXiv:1705.07120, section 5) and of the Exemplar VAE
(Norouzi et al. 2020, arXiv:2004.04795), whose figures on binarised Fashion-MNIST it is there to
meet. It knows no neighbourhood, so pixels may stand in any order.

Differs: the bottleneck maps its latents linearly to widths[-1] numbers before the first gated layer
of the decoder; two linear maps in a row are one, so the functions are the same. Images come in
[-1, 1], not [0, 1], which the first bias absorbs. Weights start by keeping the scale
(stages/nn/gated.py).
"""

from typing import Annotated, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from stages.backbones.base import Backbone, BackboneOptions
from stages.core.shapes import FeatureShape, Images, ImageShape
from stages.nn.convolution import start_weights
from stages.nn.gated import GatedLinear

__all__ = ["MLP", "MLPOptions"]

Cell = Float[Tensor, "batch maps 1 1"]
Parameters = Float[Tensor, "batch parameters height width"]


class MLPOptions(BackboneOptions):
    """Parameters of the fully connected backbone."""

    kind: Literal["mlp"]
    widths: tuple[Annotated[int, Field(ge=1)], ...] = Field(min_length=1)
    """Numbers of each hidden layer, from the image inwards; the decoder has the same, reversed."""

    def feature_shape(self, image: ImageShape) -> FeatureShape:
        """One cell, whatever the image."""
        return FeatureShape(self.widths[-1], 1, 1)


class MLP(Backbone):
    """Gated layers in, gated layers out."""

    def __init__(self, options: MLPOptions, image: ImageShape, out_channels: int) -> None:
        super().__init__(options, image, out_channels)
        self.encoder = _Encoder(options.widths, image)
        self.decoder = _Decoder(options.widths[::-1], ImageShape(out_channels, *image[1:]))


class _Encoder(nn.Module):
    def __init__(self, widths: tuple[int, ...], image: ImageShape) -> None:
        super().__init__()
        self.layers = _gated_layers(image.dims, widths)

    def forward(self, images: Images) -> Cell:
        return self.layers(images.flatten(1))[:, :, None, None]


class _Decoder(nn.Module):
    def __init__(self, widths: tuple[int, ...], out: ImageShape) -> None:
        super().__init__()
        self.out = out
        self.layers = _gated_layers(widths[0], widths)
        self.project = nn.Linear(widths[-1], out.dims)
        # A small start: the first reconstructions are grey, not noise.
        start_weights(self.project.weight, widths[-1], 0.1)
        nn.init.zeros_(self.project.bias)

    def forward(self, features: Cell) -> Parameters:
        return self.project(self.layers(features.flatten(1))).unflatten(1, tuple(self.out))


def _gated_layers(in_width: int, widths: tuple[int, ...]) -> nn.Sequential:
    pairs = zip((in_width, *widths), widths, strict=False)
    return nn.Sequential(*(GatedLinear(before, after) for before, after in pairs))
