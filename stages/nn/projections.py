"""Between the features of a backbone and the latents of a bottleneck.

`spatial`: a 1x1 convolution; latents keep the grid of the features, so many numbers per cell.
`vector`: one linear map of all features; latents are one cell, a grid of 1x1.
"""

import math
from typing import Literal

from torch import nn

from stages.core.shapes import FeatureShape
from stages.nn.convolution import LINEAR, convolution, start_weights

__all__ = ["Layout", "features_from_latents", "grid_shape", "latents_from_features"]

Layout = Literal["spatial", "vector"]


def grid_shape(layout: Layout, features: FeatureShape) -> tuple[int, int]:
    """Rows and columns of the latent grid."""
    return (features.grid_height, features.grid_width) if layout == "spatial" else (1, 1)


def latents_from_features(layout: Layout, features: FeatureShape, channels: int) -> nn.Module:
    """Features (batch, width, grid) -> (batch, channels, latent grid)."""
    if layout == "spatial":
        return convolution(features.width, channels, 1, gain=LINEAR)
    return nn.Sequential(
        nn.Flatten(), _linear(math.prod(features), channels), nn.Unflatten(1, (channels, 1, 1))
    )


def features_from_latents(layout: Layout, features: FeatureShape, channels: int) -> nn.Module:
    """(batch, channels, latent grid) -> features (batch, width, grid)."""
    if layout == "spatial":
        return convolution(channels, features.width, 1, gain=LINEAR)
    return nn.Sequential(
        nn.Flatten(), _linear(channels, math.prod(features)), nn.Unflatten(1, tuple(features))
    )


def _linear(in_features: int, out_features: int) -> nn.Linear:
    layer = nn.Linear(in_features, out_features)
    start_weights(layer.weight, in_features, LINEAR)
    nn.init.zeros_(layer.bias)
    return layer
