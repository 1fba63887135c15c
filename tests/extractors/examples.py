"""One of every feature network, its weights drawn at random."""

from functools import cache
from pathlib import Path

import pytest
import torch

from stages.assembly.judge import JudgeConfig, build_judge, load_judge, save_judge
from stages.core.artifacts import new_artifact
from stages.core.shapes import ImageShape
from stages.extractors.base import Extractor
from stages.extractors.classifier import Classifier
from stages.extractors.inception import MODULE, Inception, build_inception
from stages.extractors.mobilenet_v2 import MobileNetV2, MobileNetV2Extractor
from stages.extractors.resnet56_cifar10 import ResNet56, ResNet56Cifar10

CPU = torch.device("cpu")


def judge_folder(folder: Path, image: ImageShape, num_classes: int) -> Path:
    """An untrained judge of images of this shape, on disk."""
    config = JudgeConfig.model_validate(
        {"judge": {"width": 8}, "image": image, "num_classes": num_classes}
    )
    with new_artifact(folder, "judge", {"prepared": "", "test_accuracy": 0.5}) as building:
        save_judge(building, build_judge(config), config)
    return folder


@cache
def random_inception() -> torch.nn.Module:
    """torch-fidelity's network before it is given weights."""
    theirs = pytest.importorskip(MODULE).FeatureExtractorInceptionV3
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict", lambda self, tensors: None)
        return lively(build_inception({}))


def lively(network: torch.nn.Module) -> torch.nn.Module:
    """With kernels that keep the size of what they see: torch's own would leave nothing of it."""
    for tensor in network.parameters():
        if tensor.ndim == 4:
            torch.nn.init.kaiming_uniform_(tensor)
    return network


def make(kind: str, folder: Path, image: ImageShape) -> Extractor:
    """A member for images of this shape."""
    torch.manual_seed(7)
    if kind == "classifier":
        return Classifier(load_judge(judge_folder(folder / "judge", image, 5), CPU))
    if kind == "resnet56_cifar10":
        return ResNet56Cifar10(lively(ResNet56()), "a resnet")
    if kind == "mobilenet_v2":
        return MobileNetV2Extractor(lively(MobileNetV2()), "a mobilenet")
    return Inception(random_inception(), "an inception")
