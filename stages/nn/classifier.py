"""A small convolutional classifier, and the features it judges images by.

    3x3 convolution -> residual units, halving the grid and doubling the width until a side is <= 4
    -> mean over the grid: the features -> linear: the logits

The features are the penultimate layer, as in Heusel et al. 2017 (arXiv:1706.08500). Group
normalisation (Wu & He 2018, arXiv:1803.08494) and not batch normalisation: an image has the same
features whatever batch it stands in. Fully convolutional: any image size.
"""

from itertools import pairwise

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stages.core.shapes import Features, Images, ImageShape

__all__ = ["Classifier"]

# Widths double at every halving, up to this multiple of the first.
WIDEST = 4
SMALLEST_SIDE = 4


class Classifier(nn.Module):
    """Images to features to logits.

    Attributes:
        feature_dim: Numbers in the features of an image.
    """

    feature_dim: int

    def __init__(self, image: ImageShape, width: int, num_outputs: int) -> None:
        """Build it.

        Args:
            image: Shape of the images it will mostly see; sets the number of halvings.
            width: Channels at full resolution, a multiple of 8.
            num_outputs: Number of logits.
        """
        super().__init__()
        widths = [width]
        side = min(image.height, image.width)
        while side > SMALLEST_SIDE:
            widths.append(min(2 * widths[-1], WIDEST * width))
            side = (side + 1) // 2
        self.stem = nn.Conv2d(image.channels, width, 3, padding=1)
        self.units = nn.Sequential(
            _Unit(width, width, stride=1),
            *(_Unit(a, b, stride=2) for a, b in pairwise(widths)),
        )
        self.norm = nn.GroupNorm(8, widths[-1])
        self.output = nn.Linear(widths[-1], num_outputs)
        self.feature_dim = widths[-1]

    def features(self, images: Images) -> Float[Tensor, "batch feature_dim"]:
        """What the last layer sees."""
        hidden = self.units(self.stem(images))
        return F.silu(self.norm(hidden)).mean(dim=(2, 3))

    def forward(self, images: Images) -> Float[Tensor, "batch num_outputs"]:
        """Logits."""
        return self.output(self.features(images))


class _Unit(nn.Module):
    """Pre-activation residual unit (He et al. 2016, arXiv:1603.05027)."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(8, width_in), nn.GroupNorm(8, width_out)])
        self.first = nn.Conv2d(width_in, width_out, 3, stride=stride, padding=1)
        self.second = nn.Conv2d(width_out, width_out, 3, padding=1)
        self.skip = nn.Conv2d(width_in, width_out, 1, stride=stride)

    def forward(self, features: Features) -> Tensor:
        """Same rank, width_out channels, the grid divided by the stride."""
        hidden = self.first(F.silu(self.norms[0](features)))
        return self.skip(features) + self.second(F.silu(self.norms[1](hidden)))
