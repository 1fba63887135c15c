"""The judge: a small classifier trained on the same data, in whose features images are compared.

Where no weights of a published network may be had (or would see nothing familiar in the images), a
classifier of one's own is an honest extractor as long as it is named. With classes it learns the
classes; without, it learns to tell by how many right angles an image was turned (RotNet: Gidaris
et al. 2018, arXiv:1803.07728), which needs no labels and still needs to know what things look like.
The judge never sees an image that the line made, and not the test split either.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from stages.core.artifacts import Artifact, open_artifact, read_weights, write_json, write_weights
from stages.core.intensities import from_pixels
from stages.core.sections import Section, read_yaml, validate
from stages.core.shapes import ImageShape, Pixels
from stages.nn.classifier import Classifier
from stages.nn.rotation import NUM_ROTATIONS

__all__ = [
    "Judge",
    "JudgeConfig",
    "JudgeOptions",
    "build_judge",
    "load_judge",
    "save_judge",
]

WEIGHTS = "weights.safetensors"
CONFIG = "config.json"


class JudgeOptions(Section):
    """The `judge` section."""

    width: int = Field(gt=0, multiple_of=8)
    """Channels at full resolution; features are up to four times as many numbers."""


class JudgeConfig(Section):
    """What has to be known to build the judge again."""

    judge: JudgeOptions
    image: ImageShape
    num_classes: int = Field(ge=0)
    """Classes of the data; 0: it was taught rotations."""

    @property
    def taught(self) -> Literal["classes", "rotations"]:
        """What it tells apart."""
        return "classes" if self.num_classes else "rotations"

    @property
    def num_outputs(self) -> int:
        """Number of logits."""
        return self.num_classes or NUM_ROTATIONS


@dataclass(frozen=True)
class Judge:
    """A trained judge."""

    network: Classifier
    artifact: Artifact
    config: JudgeConfig

    @property
    def test_accuracy(self) -> float:
        """Share of test images it gets right."""
        return float(self.artifact.about["test_accuracy"])

    @property
    def name(self) -> str:
        """What figures in its features are called after: `classifier` or `rotation`."""
        return "classifier" if self.config.taught == "classes" else "rotation"

    @torch.inference_mode()
    def features(self, pixels: Pixels) -> Float[Tensor, "batch feature_dim"]:
        """Penultimate layer, float32, on the network's device; images as they are, no resizing."""
        return self.network.features(from_pixels(pixels))

    @torch.inference_mode()
    def decide(
        self, features: Float[Tensor, "batch feature_dim"]
    ) -> Float[Tensor, "batch num_outputs"]:
        """Logits over classes (or rotations) of images whose features are at hand."""
        return self.network.output(features)

    def logits(self, pixels: Pixels) -> Float[Tensor, "batch num_outputs"]:
        """Logits over classes (or rotations)."""
        return self.decide(self.features(pixels))


def build_judge(config: JudgeConfig) -> Classifier:
    """A fresh network."""
    return Classifier(config.image, config.judge.width, config.num_outputs)


def save_judge(folder: Path, network: Classifier, config: JudgeConfig) -> None:
    """Write weights and config into an artifact being built."""
    write_weights(folder / WEIGHTS, network.state_dict())
    write_json(folder / CONFIG, config.model_dump(mode="json"))


def load_judge(path: Path, device: torch.device) -> Judge:
    """Read a judge and set it to evaluation.

    Raises:
        ArtifactError: If there is none, or its files are damaged.
    """
    artifact = open_artifact(path, "judge")
    written = artifact.verified(CONFIG)
    config = validate(JudgeConfig, read_yaml(written), source=str(written))
    network = build_judge(config)
    network.load_state_dict(read_weights(artifact, WEIGHTS))
    return Judge(network.to(device).eval(), artifact, config)
