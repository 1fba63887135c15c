"""ResNet-56 for CIFAR-10: 64 features of the layer before the classes of CIFAR-10.

    3x3 convolution -> 3 groups of 9 residual blocks of 16, 32, 64 maps at 32, 16, 8 pixels
    -> mean over the grid: the features -> linear: the logits

He et al. 2016 (arXiv:1512.03385), section 4.2; shortcuts of option A: every second row and column,
new maps zero, no weights. The file is `resnet56-4bfd9763.th` of akamaster/pytorch_resnet_cifar10
(BSD-2), which gets 93.39 % of CIFAR-10's test images right. A network that has learned small
photographs is a fair extractor for them, and a poor one for anything else.
"""

from pathlib import Path
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float32
from torch import Tensor, nn

from stages.core.shapes import ImageShape, Pixels
from stages.extractors.base import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    Extractor,
    ExtractorOptions,
    PixelRule,
    Preparation,
    require_colours,
)
from stages.nn.published_weights import fill_published

__all__ = ["KNOWN", "ResNet56", "ResNet56Cifar10", "ResNet56Cifar10Options"]

KNOWN: tuple[str, ...] = ("4bfd97631478d6b638d2764fd2baff3edb1d7d82252d54439343b6596b9b5367",)
"""sha256 of the file."""

CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)

Maps = Float[Tensor, "batch maps rows columns"]


class ResNet56Cifar10Options(ExtractorOptions):
    """The file `resnet56-4bfd9763.th`."""

    kind: Literal["resnet56_cifar10"]


class ResNet56Cifar10(Extractor):
    """Images at 32x32, normalised as its authors did (with ImageNet's statistics)."""

    title = "ResNet-56 taught CIFAR-10, penultimate layer"
    name = "resnet56_cifar10"
    distance_name = "frechet_resnet56_cifar10"
    feature_dim = 64
    num_classes = 10
    test_accuracy = 0.9339

    def __init__(self, network: "ResNet56", checksum: str) -> None:
        self._network, self.checksum = network, checksum
        self._prepare = Preparation((32, 32), IMAGENET_MEAN, IMAGENET_STD)

    @classmethod
    def open(
        cls, options: ResNet56Cifar10Options, image: ImageShape, device: torch.device
    ) -> "ResNet56Cifar10":
        """Read the published file."""
        require_colours(image, cls.name)
        network = ResNet56()
        targets = {
            f"module.{name}": tensor
            for name, tensor in network.state_dict().items()
            if not name.endswith("num_batches_tracked")
        }
        checksum = fill_published(
            Path(options.weights),
            targets,
            known=KNOWN,
            mend=(
                "evaluate.networks: weights of resnet56_cifar10 must name resnet56-4bfd9763.th of "
                "akamaster/pytorch_resnet_cifar10"
            ),
            entry="state_dict",
        )
        return cls(network.to(device), checksum)

    @property
    def network(self) -> nn.Module:
        """The residual network."""
        return self._network

    def rule(self, image: ImageShape) -> PixelRule:
        """To 32x32."""
        return self._prepare.rule(image)

    def tells_apart(self, class_names: list[str]) -> bool:
        """Those of CIFAR-10."""
        return tuple(class_names) == CLASSES

    def side(self, image: ImageShape) -> tuple[int, int]:
        """32x32."""
        return 32, 32

    @torch.inference_mode()
    def features(
        self, pixels: Pixels
    ) -> tuple[Float32[Tensor, "batch feature_dim"], Float32[Tensor, "batch num_classes"]]:
        """Mean over the last grid, and logits over CIFAR-10's classes in its own order."""
        features = self._network(self._prepare(pixels))
        return features, self._network.linear(features)


class ResNet56(nn.Module):
    """Images to features; names are those of the file."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _group(16, 16, stride=1)
        self.layer2 = _group(16, 32, stride=2)
        self.layer3 = _group(32, 64, stride=2)
        self.linear = nn.Linear(64, 10)
        self.requires_grad_(False).eval()

    def forward(
        self, images: Float[Tensor, "batch 3 rows columns"]
    ) -> Float[Tensor, "batch feature_dim"]:
        """What the last layer sees."""
        maps = F.relu(self.bn1(self.conv1(images)))
        return self.layer3(self.layer2(self.layer1(maps))).mean(dim=(2, 3))


def _group(width_in: int, width_out: int, stride: int) -> nn.Sequential:
    later = [_Block(width_out, width_out, 1) for _ in range(8)]
    return nn.Sequential(_Block(width_in, width_out, stride), *later)


class _Block(nn.Module):
    """Two convolutions, each behind it a normalisation, and a shortcut without weights."""

    def __init__(self, width_in: int, width_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(width_in, width_out, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width_out)
        self.conv2 = nn.Conv2d(width_out, width_out, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width_out)
        # Half of the new maps before the old ones, half behind.
        self._new = (width_out - width_in) // 2
        self._stride = stride

    def forward(self, maps: Maps) -> Tensor:
        shortcut = maps[:, :, :: self._stride, :: self._stride]
        shortcut = F.pad(shortcut, (0, 0, 0, 0, self._new, self._new))
        hidden = F.relu(self.bn1(self.conv1(maps)))
        return F.relu(self.bn2(self.conv2(hidden)) + shortcut)
