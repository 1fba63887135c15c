"""The judge of a line (stages/assembly/judge.py) as a feature network.

Trained on the very training split, it sees what matters in these images and nothing else; its
figures compare within one judge only. A judge that was taught rotations gives its figures the name
`rotation`, and its logits are no classes of images.
"""

from pathlib import Path
from typing import Literal

import torch
from jaxtyping import Float32
from torch import Tensor, nn

from stages.assembly.judge import Judge, load_judge
from stages.core.errors import ParamsError
from stages.core.shapes import ImageShape, Pixels
from stages.extractors.base import Extractor, ExtractorOptions, PixelRule

__all__ = ["Classifier", "ClassifierOptions"]


class ClassifierOptions(ExtractorOptions):
    """A judge, by the folder of its artifact."""

    kind: Literal["classifier"]


class Classifier(Extractor):
    """Penultimate layer of a judge; logits where it was taught classes."""

    def __init__(self, judge: Judge) -> None:
        self._judge = judge
        self.name = judge.name
        self.distance_name = f"frechet_{judge.name}"
        self.feature_dim = judge.network.feature_dim
        self.num_classes = judge.config.num_classes
        self.checksum = judge.artifact.digest
        self.test_accuracy = judge.test_accuracy
        self.title = f"convolutional classifier taught {judge.config.taught}, penultimate layer"

    @classmethod
    def open(
        cls, options: ClassifierOptions, image: ImageShape, device: torch.device
    ) -> "Classifier":
        """Read a judge of images of the same number of channels."""
        judge = load_judge(Path(options.weights), device)
        if judge.config.image.channels != image.channels:
            raise ParamsError(
                f"{options.weights}: this judge sees images of {judge.config.image.channels} "
                f"channels; these have {image.channels}; use a judge of such images"
            )
        return cls(judge)

    @property
    def network(self) -> nn.Module:
        """The classifier."""
        return self._judge.network

    def rule(self, image: ImageShape) -> PixelRule:
        """Images as they are."""
        return PixelRule(resize="none", antialias=None, values="v / 127.5 - 1", grey="none")

    def tells_apart(self, class_names: list[str]) -> bool:
        """Whatever its own data call them."""
        return 0 < self.num_classes == len(class_names)

    def side(self, image: ImageShape) -> tuple[int, int]:
        """That of the images."""
        return image.height, image.width

    def features(
        self, pixels: Pixels
    ) -> tuple[Float32[Tensor, "batch feature_dim"], Float32[Tensor, "batch num_classes"] | None]:
        """Features, and logits over the classes of the data."""
        features = self._judge.features(pixels)
        return features, self._judge.decide(features) if self.num_classes else None
