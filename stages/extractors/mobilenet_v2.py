"""MobileNetV2 for ImageNet: 1280 features of the layer before its classes.

    3x3 convolution, 32 maps, stride 2 -> 17 inverted residual blocks -> 1x1 convolution, 1280 maps
    -> mean over the grid: the features

A block (Sandler et al. 2018, arXiv:1801.04381, Table 1) widens t times by a 1x1 convolution, looks
with a 3x3 convolution of each map alone, and narrows again linearly; where neither size nor width
changes the input is added. Activations are min(max(x, 0), 6).

Weights: `mobilenet_v2_bnfolded_features.pth`, those of the ONNX model zoo (Apache-2.0) with the
normalisations folded into the convolutions. Convolution n of the file is node n of that graph, in
which activations and additions are counted too. The matrix of the classes is not in the file, so
there are no logits.

Differs: the whole image is resized to 224x224; its authors resized to 256 and cropped 224.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import torch
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

__all__ = ["KNOWN", "MobileNetV2", "MobileNetV2Extractor", "MobileNetV2Options"]

KNOWN: tuple[str, ...] = ("1837f65dba6c15ec8756cacbb1eede791fee0a72be18a1b1fde6dc3f8f63d9ff",)
"""sha256 of the file."""

SIDE = 224
# Expansion t, maps c, repetitions n, stride s of the first: Table 2 of the paper.
_GROUPS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)

Maps = Float[Tensor, "batch maps rows columns"]


class MobileNetV2Options(ExtractorOptions):
    """The file `mobilenet_v2_bnfolded_features.pth`."""

    kind: Literal["mobilenet_v2"]


class MobileNetV2Extractor(Extractor):
    """Images at 224x224."""

    title = "MobileNetV2 1.0 taught ImageNet, penultimate layer"
    name = "mobilenet_v2"
    distance_name = "frechet_mobilenet_v2"
    feature_dim = 1280
    num_classes = 0
    test_accuracy = None

    def __init__(self, network: "MobileNetV2", checksum: str) -> None:
        # Twice as fast on a CPU with the maps of a pixel side by side.
        self._network = network.to(memory_format=torch.channels_last)
        self.checksum = checksum
        self._prepare = Preparation((SIDE, SIDE), IMAGENET_MEAN, IMAGENET_STD)

    @classmethod
    def open(
        cls, options: MobileNetV2Options, image: ImageShape, device: torch.device
    ) -> "MobileNetV2Extractor":
        """Read the published file."""
        require_colours(image, cls.name)
        network = MobileNetV2()
        checksum = fill_published(
            Path(options.weights),
            network.named_in_file(),
            known=KNOWN,
            mend=(
                "evaluate.networks: weights of mobilenet_v2 must name "
                "mobilenet_v2_bnfolded_features.pth (MobileNetV2 1.0 of the ONNX model zoo, "
                "normalisations folded)"
            ),
        )
        return cls(network.to(device), checksum)

    @property
    def network(self) -> nn.Module:
        """The convolutional network."""
        return self._network

    def rule(self, image: ImageShape) -> PixelRule:
        """To 224x224."""
        return self._prepare.rule(image)

    def tells_apart(self, class_names: list[str]) -> bool:
        """None: there are no logits."""
        return False

    def side(self, image: ImageShape) -> tuple[int, int]:
        """224x224."""
        return SIDE, SIDE

    @torch.inference_mode()
    def features(self, pixels: Pixels) -> tuple[Float32[Tensor, "batch feature_dim"], None]:
        """Mean over the last grid; no logits."""
        images = self._prepare(pixels).contiguous(memory_format=torch.channels_last)
        return self._network(images), None


class MobileNetV2(nn.Module):
    """Images to features, without normalisation layers."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 32, 3, stride=2, padding=1), nn.ReLU6(inplace=True)]
        width = 32
        for expansion, maps, repetitions, stride in _GROUPS:
            for number in range(repetitions):
                layers.append(_Block(width, maps, expansion, stride if number == 0 else 1))
                width = maps
        self.layers = nn.Sequential(*layers, nn.Conv2d(width, 1280, 1), nn.ReLU6(inplace=True))
        self.requires_grad_(False).eval()

    def forward(
        self, images: Float[Tensor, "batch 3 rows columns"]
    ) -> Float[Tensor, "batch feature_dim"]:
        """Mean over the last grid."""
        return self.layers(images).mean(dim=(2, 3))

    def named_in_file(self) -> dict[str, Tensor]:
        """The parameters under the names of the file."""
        named: dict[str, Tensor] = {}
        for number, node in enumerate(_nodes(self.layers)):
            if isinstance(node, nn.Conv2d):
                assert node.bias is not None
                named |= {f"conv_{number}_weight": node.weight, f"conv_{number}_bias": node.bias}
        return named


class _Block(nn.Module):
    """Wide inside, narrow outside."""

    def __init__(self, width: int, maps: int, expansion: int, stride: int) -> None:
        super().__init__()
        wide = width * expansion
        widen = [nn.Conv2d(width, wide, 1), nn.ReLU6(inplace=True)] if expansion > 1 else []
        self.layers = nn.Sequential(
            *widen,
            nn.Conv2d(wide, wide, 3, stride=stride, padding=1, groups=wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, maps, 1),
        )
        self.adds = stride == 1 and width == maps

    def forward(self, maps: Maps) -> Tensor:
        return self.layers(maps) + maps if self.adds else self.layers(maps)


def _nodes(layers: nn.Sequential) -> Iterator[nn.Module | None]:
    """Nodes of the graph in order; None for an addition."""
    for layer in layers:
        if isinstance(layer, _Block):
            yield from layer.layers
            if layer.adds:
                yield None
        else:
            yield layer
