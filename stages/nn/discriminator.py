"""A discriminator that judges patches: is what is seen here an image, or a reconstruction?

    4x4 convolutions of stride 2, the first into `width` maps, each further one into twice as many
    (at most 8 * width), `layers` of them; one more of stride 1; one into a single map: the logits

PatchGAN (Isola et al. 2017, arXiv:1611.07004, section 6.1.2), as VQGAN uses it (Esser et al. 2021,
arXiv:2012.09841). Each logit looks at one patch: 70 x 70 pixels for 3 layers, 34 for 2, 16 for 1.
Texture is judged this way, and the likelihood is left to care for what stands where.

Differs: group normalisation (Wu & He 2018) for batch normalisation: the verdict on an image does
not depend on the others in its batch, and there are no running statistics (the paper's own batches
of one image come to much the same). Weights start by keeping the scale of what passes, the last
ones small: the first verdicts are undecided.
"""

import math
from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stages.core.errors import ParamsError
from stages.core.shapes import Images, ImageShape
from stages.nn.convolution import LINEAR, start_weights

__all__ = ["PatchDiscriminator", "patch_size"]

# Widths double up to this multiple of the first; the paper's value.
_WIDEST = 8
_GROUPS = 8
_SLOPE = 0.2
# One over the root mean square of a leaky ReLU of x ~ N(0, 1).
_AFTER_LEAKY_RELU = math.sqrt(2 / (1 + _SLOPE**2))


class PatchDiscriminator(nn.Module):
    """Images to a map of logits, one per patch; positive: an image."""

    def __init__(self, image: ImageShape, width: int, layers: int) -> None:
        """Build it.

        Args:
            image: Shape of the images.
            width: Maps of the first layer, a multiple of 8.
            layers: Halvings.

        Raises:
            ParamsError: If the images are too small for so many halvings.
        """
        super().__init__()
        # The two last layers take a row and a column each.
        smallest = 3 * 2**layers
        if min(image.height, image.width) < smallest:
            raise ParamsError(
                f"adversary.layers: {layers} halvings need images of at least {smallest} pixels a "
                f"side; they are {image.height}x{image.width}; give fewer layers"
            )
        widths = [min(2**level, _WIDEST) * width for level in range(layers + 1)]
        strides = [2] * (layers - 1) + [1]
        self.first = _layer(image.channels, width, 2, LINEAR)
        self.units = nn.ModuleList(
            _layer(a, b, stride, _AFTER_LEAKY_RELU)
            for (a, b), stride in zip(pairwise(widths), strides, strict=True)
        )
        self.norms = nn.ModuleList(nn.GroupNorm(_GROUPS, b) for b in widths[1:])
        self.output = _layer(widths[-1], 1, 1, gain=0.1)

    def forward(self, images: Images) -> Float[Tensor, "batch 1 patch_rows patch_columns"]:
        """Logits of all patches."""
        maps = F.leaky_relu(self.first(images), _SLOPE)
        for unit, norm in zip(self.units, self.norms, strict=True):
            maps = F.leaky_relu(norm(unit(maps)), _SLOPE)
        return self.output(maps)


def patch_size(layers: int) -> int:
    """Side in pixels of the patch behind one logit."""
    side = 1
    for stride in (1, 1, *[2] * layers):
        side = side * stride + 4 - stride
    return side


def _layer(in_width: int, out_width: int, stride: int, gain: float) -> nn.Conv2d:
    layer = nn.Conv2d(in_width, out_width, 4, stride=stride, padding=1)
    start_weights(layer.weight, 16 * in_width, gain)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
