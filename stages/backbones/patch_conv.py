"""Patches and convolutions on one grid: all arithmetic where it is cheapest.

    encoder   space to depth -> 3x3 to `width` maps -> blocks -> ReLU, 3x3 to the features
    decoder   features -> 3x3 to `width` maps -> blocks -> ReLU, 3x3 -> depth to space
    block     y = x + W relu(x),    W: 3x3, width -> width, zero at the start

A patch of p x p pixels and c channels becomes one cell of p * p * c numbers, and the decoder's last
convolution gives such cells back (sub-pixel convolution: Shi et al. 2016, arXiv:1609.05158, Eq. 4;
an autoencoder between the two: DC-AE, Chen et al. 2024, arXiv:2410.10733, section 3.1). Every
convolution stands on the grid of the latents and sees the neighbours, the last one too, so that
patches agree at their edges.

Why one grid: a 3x3 convolution does 9 * width multiplications per number that it reads or writes,
so few wide maps make a network of arithmetic, and many narrow ones at high resolution a network of
memory traffic. On a core with AMX, where arithmetic costs little, that is most of the difference;
ReLU, one convolution per block and no normalisation are for the same reason.

Why cells of 32 images lie side by side (`_cells`): the kernels that compute a weight's gradient go
along rows, and rows of 8 cells leave them three quarters empty. A third axis of 32 images, along
which kernels have one element, fills them: the gradient of a weight takes half the time, and the
numbers are the same up to rounding.

Differs: DC-AE halves the grid level by level with a shortcut around each halving; here one step
leads to the grid and one back. The numbers of a patch are ordered row, column, channel, which is
how channels-last images lie in memory.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from stages.backbones.base import Backbone, BackboneOptions
from stages.core.shapes import FeatureShape, Images, ImageShape
from stages.nn.convolution import LINEAR, start_weights
from stages.nn.patch_options import PatchOptions

__all__ = ["PatchConv", "PatchConvOptions"]

# Not `Features`: its axis `width` is the number of maps, that of `Images` the number of columns.
Maps = Float[Tensor, "batch maps rows columns"]
Cells = Float[Tensor, "groups numbers grid_height grid_width together"]
Parameters = Float[Tensor, "batch parameters height width"]

# One over the root mean square of relu(x), x ~ N(0, 1).
_AFTER_RELU = math.sqrt(2)
# Images whose cells lie side by side: rows that fill a tile of AMX in bfloat16.
_TOGETHER = 32


class PatchConvOptions(PatchOptions, BackboneOptions):
    """Parameters of the backbone of convolutions over patches."""

    kind: Literal["patch_conv"]
    width: int = Field(ge=1)
    """Maps between the first and the last convolution, of the encoder and of the decoder."""
    feature_width: int = Field(ge=1)
    """Maps of the features."""
    blocks: int = Field(ge=0)
    """Residual blocks of the encoder."""
    decoder_blocks: int = Field(ge=0)
    """Residual blocks of the decoder."""

    def feature_shape(self, image: ImageShape) -> FeatureShape:
        """One cell per patch.

        Raises:
            ParamsError: If height or width is no multiple of `patch`.
        """
        return self.cells(self.feature_width, image)


class PatchConv(Backbone):
    """Space to depth, convolutions, depth to space."""

    def __init__(self, options: PatchConvOptions, image: ImageShape, out_channels: int) -> None:
        super().__init__(options, image, out_channels)
        options.feature_shape(image)
        self.encoder = _Encoder(options, image.channels)
        self.decoder = _Decoder(options, out_channels)


class _Encoder(nn.Module):
    def __init__(self, options: PatchConvOptions, channels: int) -> None:
        super().__init__()
        self.patch = options.patch
        self.layers = nn.Sequential(
            _Convolution(channels * options.patch**2, options.width, LINEAR),
            *(_Block(options.width) for _ in range(options.blocks)),
            nn.ReLU(),
            _Convolution(options.width, options.feature_width, _AFTER_RELU),
        )

    def forward(self, images: Images) -> Maps:
        return _maps(self.layers(_cells(images, self.patch)), 1)


class _Decoder(nn.Module):
    def __init__(self, options: PatchConvOptions, out_channels: int) -> None:
        super().__init__()
        self.patch = options.patch
        self.layers = nn.Sequential(
            _Convolution(options.feature_width, options.width, LINEAR),
            *(_Block(options.width) for _ in range(options.decoder_blocks)),
            nn.ReLU(),
            # A small start: the first reconstructions are grey, not noise.
            _Convolution(options.width, out_channels * options.patch**2, 0.1),
        )

    def forward(self, features: Maps) -> Parameters:
        return _maps(self.layers(_cells(features, 1)), self.patch)


class _Block(nn.Module):
    """x -> x + f(x), the identity before training (Fixup, Zhang et al. 2019)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.convolution = _Convolution(width, width, 0.0)

    def forward(self, cells: Cells) -> Cells:
        # Not in place: writing over a map that has left the cache costs more than a new one.
        return cells + self.convolution(F.relu(cells))


class _Convolution(nn.Conv2d):
    """3x3 over the grid of every image, with a scale-keeping start."""

    def __init__(self, in_width: int, out_width: int, gain: float) -> None:
        super().__init__(in_width, out_width, 3, padding=1)
        start_weights(self.weight, 9 * in_width, gain)
        assert self.bias is not None
        nn.init.zeros_(self.bias)

    def forward(
        self, input: Float[Tensor, "groups in_width grid_height grid_width together"]
    ) -> Float[Tensor, "groups out_width grid_height grid_width together"]:
        if input.shape[-1] == 1:
            return super().forward(input[..., 0])[..., None]
        return F.conv3d(input, self.weight[..., None], self.bias, padding=(1, 1, 0))


def _cells(maps: Maps, patch: int) -> Cells:
    """Patches as cells of one grid, those of several images side by side.

    Args:
        maps: What to cut.
        patch: Rows and columns of a patch; 1: only the order in memory changes.
    """
    # Without gradients nothing is gained, and rounding would depend on the size of the batch.
    gains = torch.is_grad_enabled() and maps.device.type == "cpu" and len(maps) % _TOGETHER == 0
    # Maps innermost throughout, as they lie in memory: so do the gradients then.
    rows = maps.permute(0, 2, 3, 1).unflatten(0, (-1, _TOGETHER if gains else 1))
    cut = rows.unflatten(3, (-1, patch)).unflatten(2, (-1, patch))
    # group, image, grid row, row, grid column, column, map -> the numbers of a patch innermost
    cells = cut.permute(0, 2, 4, 1, 3, 5, 6).flatten(4)
    return cells.contiguous().permute(0, 4, 1, 2, 3)


def _maps(cells: Cells, patch: int) -> Maps:
    """Undo `_cells`."""
    numbers = cells.permute(0, 2, 3, 4, 1).unflatten(4, (patch, patch, -1))
    whole = numbers.permute(0, 3, 1, 4, 2, 5, 6).flatten(4, 5).flatten(2, 3).flatten(0, 1)
    return whole.permute(0, 3, 1, 2)
