"""The family of backbones: a pair of networks around a bottleneck.

images -> encoder -> features -> (bottleneck) -> features -> decoder -> likelihood parameters
"""

from abc import ABC, abstractmethod

from torch import nn

from stages.core.sections import MemberOptions
from stages.core.shapes import FeatureShape, ImageShape

__all__ = ["Backbone", "BackboneOptions"]


class BackboneOptions(MemberOptions):
    """Base of the backbones' options."""

    def feature_shape(self, image: ImageShape) -> FeatureShape:
        """Shape of the features for images of this shape.

        Raises:
            ValueError: If the image does not divide into the latent grid; says what must hold.
        """
        raise NotImplementedError


class Backbone(nn.Module, ABC):
    """An encoder, and the decoder that leads back.

    Attributes:
        encoder: Images (batch, channels, height, width) in [-1, 1] -> features.
        decoder: Features -> (batch, out_channels, height, width), the likelihood's parameters.
    """

    encoder: nn.Module
    decoder: nn.Module

    @abstractmethod
    def __init__(self, options: BackboneOptions, image: ImageShape, out_channels: int) -> None:
        super().__init__()
