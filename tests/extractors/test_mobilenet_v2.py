"""MobileNetV2 against a plain reading of the file."""

from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from stages.core.shapes import ImageShape
from stages.extractors.mobilenet_v2 import MobileNetV2, MobileNetV2Extractor, MobileNetV2Options
from tests.extractors.examples import CPU, lively

FILE = "mobilenet_v2/mobilenet_v2_bnfolded_features.pth"


def reference(weights, images):
    """The graph of the file: convolutions in order, told apart by the shapes of their kernels.

    A 3x3 kernel looks at each map alone, but for the first; a 1x1 kernel after it narrows and ends
    a block. A block adds its input where the numbering leaves one out behind it.
    """
    numbers = sorted(int(name.split("_")[1]) for name in weights if name.endswith("weight"))
    strided = {0, 7, 18, 35, 75}
    maps, entered = images, None
    for number, following in zip(numbers, [*numbers[1:], None], strict=True):
        kernel, bias = weights[f"conv_{number}_weight"], weights[f"conv_{number}_bias"]
        depthwise = kernel.shape[1] == 1
        narrows = kernel.shape[2] == 1 and kernel.shape[0] < kernel.shape[1]
        if kernel.shape[2] == 1 and not narrows:
            entered = maps
        maps = F.conv2d(
            maps,
            kernel,
            bias,
            stride=2 if number in strided else 1,
            padding=kernel.shape[2] // 2,
            groups=kernel.shape[0] if depthwise else 1,
        )
        if not narrows:
            maps = maps.clamp(0, 6)
        elif following == number + 2:
            maps = maps + entered
    return maps.mean(dim=3).mean(dim=2)


def named(network):
    return {name: tensor.detach() for name, tensor in network.named_in_file().items()}


def test_features_are_those_of_the_graph():
    torch.manual_seed(3)
    network, images = lively(MobileNetV2()), torch.randn(2, 3, 64, 96)
    found = network(images)
    assert found.std() > 1e-3
    torch.testing.assert_close(found, reference(named(network), images), rtol=1e-4, atol=1e-5)


def test_the_nodes_are_numbered_as_in_the_file():
    names = list(named(MobileNetV2()))
    numbers = [int(name.split("_")[1]) for name in names[::2]]
    assert len(numbers) == 52 and numbers[-1] == 95
    # Between two convolutions stands an activation or, ten times, an addition; or nothing.
    assert sum(b - a == 2 for a, b in pairwise(numbers)) == 10 + 34


def test_the_real_file_is_read(shared_data):
    path = shared_data.parent / "weights" / FILE
    if not path.is_file():
        pytest.skip(f"no weights at {path}")
    options = MobileNetV2Options(kind="mobilenet_v2", weights=str(path))
    network = MobileNetV2Extractor.open(options, ImageShape(1, 28, 30), CPU)
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (2, 1, 28, 30), dtype=torch.uint8, generator=draw)
    features, logits = network.features(pixels)
    assert logits is None and features.min() >= 0 and features.max() > 0.5
    held = torch.load(path, weights_only=True)
    assert {name for name in held if name.startswith("conv_")} == set(named(network.network))
