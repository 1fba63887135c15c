"""ResNet-56 against a plain reading of its weights, and against CIFAR-10's test split."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from stages.core.shapes import ImageShape
from stages.datasets.cifar10 import Cifar10, Cifar10Options
from stages.extractors.resnet56_cifar10 import (
    ResNet56,
    ResNet56Cifar10,
    ResNet56Cifar10Options,
)
from tests.extractors.examples import CPU

FILE = "cifar10-resnet/resnet56-4bfd9763.th"


def reference(weights, images):
    """The paper's network from its tensors alone."""

    def conv(name, number, maps, stride=1):
        kernel = weights[f"{name}conv{number}.weight"]
        maps = F.conv2d(maps, kernel, stride=stride, padding=1)
        mean, var, scale, shift = (
            weights[f"{name}bn{number}.{what}"]
            for what in ("running_mean", "running_var", "weight", "bias")
        )
        return F.batch_norm(maps, mean, var, scale, shift)

    maps = F.relu(conv("", 1, images))
    for group, width in ((1, 16), (2, 32), (3, 64)):
        for block in range(9):
            stride = 2 if group > 1 and block == 0 else 1
            name = f"layer{group}.{block}."
            shortcut = torch.zeros(len(maps), width, *(s // stride for s in maps.shape[2:]))
            start = (width - maps.shape[1]) // 2
            shortcut[:, start : start + maps.shape[1]] = maps[:, :, ::stride, ::stride]
            maps = F.relu(conv(name, 2, F.relu(conv(name, 1, maps, stride))) + shortcut)
    return maps.flatten(2).mean(dim=2)


def test_features_are_those_of_the_paper():
    torch.manual_seed(3)
    network, images = ResNet56(), torch.randn(2, 3, 32, 32)
    for name, tensor in network.state_dict().items():
        if "running_var" in name:
            tensor.uniform_(0.5, 2.0)
        elif "running_mean" in name or name.endswith("bias"):
            tensor.normal_(std=0.1)
    torch.testing.assert_close(network(images), reference(network.state_dict(), images))


@pytest.mark.slow
def test_the_published_accuracy(shared_data):
    """93.39 % of CIFAR-10's test images, as its authors say: loaded, scaled and ordered right."""
    weights = shared_data.parent / "weights" / FILE
    if not weights.is_file():
        pytest.skip(f"no weights at {weights}")
    options = Cifar10Options(
        kind="cifar10",
        watch="data/README.md",
        root=str(shared_data / "cifar10"),
        download=False,
        validation_fraction=0.1,
        test_fraction=0.0,
    )
    network = ResNet56Cifar10.open(
        ResNet56Cifar10Options(kind="resnet56_cifar10", weights=str(weights)),
        ImageShape(3, 32, 32),
        CPU,
    )
    right = count = 0
    for block in Cifar10(options).blocks([]):
        if block.split != "test":
            continue
        for start in range(0, len(block.images), 128):
            rows = slice(start, start + 128)
            _, logits = network.features(torch.from_numpy(np.array(block.images[rows])))
            right += (logits.argmax(dim=1).numpy() == block.labels[rows]).sum()
            count += len(logits)
    assert (right, count) == (9339, 10_000)
