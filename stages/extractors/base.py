"""The family of feature networks: what is compared when two sets of images are.

    8-bit image -> resize, scale, normalise -> network -> features (and logits over its classes)

A distance between sets of images means something only beside the network, its weights, and what was
done to the pixels on the way in: Parmar et al. 2022 (arXiv:2104.11222) moved FID by whole points
with the resizing filter alone. So a network states all three, they stand in the protocol of
every figure, and a figure is named after the network. Only the Inception network of Heusel et al.
2017 (arXiv:1706.08500) gives what may be called FID.

One resize rule for all that do not bring their own: bilinear with antialias on float32, not rounded
to 8 bits afterwards.
"""

import hashlib
import sys
from abc import ABC, abstractmethod
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Float32
from pydantic import Field
from torch import Tensor, nn

from stages.core.errors import ParamsError
from stages.core.sections import MemberOptions
from stages.core.shapes import ImageShape, Pixels

__all__ = [
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "Extractor",
    "ExtractorOptions",
    "PixelRule",
    "Preparation",
    "grey_words",
    "require_colours",
    "resize_words",
]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

PIXELS_AT_ONCE = 2**17
"""Pixels, as a network sees them, in one pass: few enough for the caches of a CPU. Fixed, because
the last bits of a feature may depend on how many images are passed together."""


class ExtractorOptions(MemberOptions):
    """Which network."""

    weights: str = Field(min_length=1)
    """Path of the file of weights; of the folder of a judge for `classifier`."""


@dataclass(frozen=True)
class PixelRule:
    """What is done to the pixels of 8-bit images on the way in, for protocols."""

    resize: str
    """Filter and sizes; `none` where images stay as they are."""
    antialias: bool | None
    """Whether the filter widens when it shrinks; None where nothing is resized."""
    values: str
    """From 8-bit values v to what the network sees."""
    grey: str
    """What becomes of grey images; `none` for colours."""


def resize_words(how: str, image: ImageShape, height: int, width: int) -> str:
    """A resizing for protocols."""
    return f"{how}, {image.height}x{image.width} to {height}x{width}, on float32, not rounded"


def grey_words(image: ImageShape) -> str:
    """What networks for colours do to images of this shape."""
    return "repeated to three channels" if image.channels == 1 else "none"


@dataclass(frozen=True)
class Preparation:
    """What is done to 8-bit images before a network sees them."""

    size: tuple[int, int] | None
    """Height and width that the network sees; None: those of the images."""
    mean: tuple[float, float, float]
    """Subtracted from intensities in [0, 1], per channel."""
    std: tuple[float, float, float]
    """What the rest is divided by."""

    def __call__(self, pixels: Pixels) -> Float32[Tensor, "batch 3 rows columns"]:
        """Intensities as the network wants them; grey images in three equal channels."""
        images = pixels.float().div_(255.0)
        size = self.size or tuple(images.shape[2:])
        if size != images.shape[2:]:
            images = F.interpolate(
                images, size, mode="bilinear", align_corners=False, antialias=True
            )
        mean, std = (torch.tensor(v, device=images.device) for v in (self.mean, self.std))
        return (images.expand(-1, 3, -1, -1) - mean[:, None, None]) / std[:, None, None]

    def rule(self, image: ImageShape) -> PixelRule:
        """The same for images of this shape, in words."""
        same = self.size in (None, (image.height, image.width))
        return PixelRule(
            resize="none" if same else resize_words("bilinear", image, *self.size),
            antialias=None if same else True,
            values=f"v / 255, then mean {self.mean} and deviation {self.std} of each channel",
            grey=grey_words(image),
        )


class Extractor(ABC):
    """A frozen network on one device.

    Attributes:
        name: What figures in its features are called after.
        distance_name: What the Frechet distance in its features is called.
        feature_dim: Numbers per image.
        num_classes: Of its logits; 0: it has none.
        checksum: sha256 that stands for its weights.
        test_accuracy: Share of the test images of its own training data whose class it gets right;
            None where that is not known.
    """

    title: ClassVar[str]
    """The network and its layer, for protocols."""
    name: str
    distance_name: str
    feature_dim: int
    num_classes: int
    checksum: str
    test_accuracy: float | None

    @classmethod
    @abstractmethod
    def open(cls, options: Any, image: ImageShape, device: torch.device) -> "Extractor":
        """Read the weights.

        Args:
            options: Of this member.
            image: Shape of the images it will be shown.
            device: Where it computes.

        Raises:
            LatentlineError: If there are none, they are not the ones they should be, or it cannot
                see such images.
        """

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """What computes."""

    @abstractmethod
    def rule(self, image: ImageShape) -> PixelRule:
        """What is done to images of this shape on the way in."""

    @abstractmethod
    def tells_apart(self, class_names: list[str]) -> bool:
        """Whether its logits are over the classes of these names, in this order."""

    @abstractmethod
    def side(self, image: ImageShape) -> tuple[int, int]:
        """Height and width at which it sees images of this shape."""

    @abstractmethod
    def features(
        self, pixels: Pixels
    ) -> tuple[Float32[Tensor, "batch feature_dim"], Float32[Tensor, "batch num_classes"] | None]:
        """Features and logits of 8-bit images, which lie on the network's device."""

    def images_at_once(self, image: ImageShape) -> int:
        """Images to pass together."""
        height, width = self.side(image)
        return max(1, PIXELS_AT_ONCE // (height * width))

    @property
    def code_digest(self) -> str:
        """sha256 of the source files that define the network, for what is kept across versions."""
        parts = (type(self), *(type(module) for module in self.network.modules()))
        names = {cls.__module__ for part in parts for cls in part.__mro__}
        files = {
            Path(file)
            for name in names
            if not name.startswith("torch.") and (file := getattr(sys.modules[name], "__file__", 0))
        }
        code = hashlib.sha256()
        for content in sorted(file.read_bytes() for file in files):
            code.update(hashlib.sha256(content).digest())
        return code.hexdigest()


def require_colours(image: ImageShape, name: str) -> None:
    """Refuse images that are neither grey nor of three colours.

    Raises:
        ParamsError: Naming the network and the channels.
    """
    if image.channels not in (1, 3):
        raise ParamsError(
            f"evaluate.networks: {name} needs grey images or three colours; the images have "
            f"{image.channels} channels; leave it out"
        )
