"""Teaching the judge: classes where the data have them, right angles where they do not.

With classes: cross entropy of the label. Without: every image of a batch is turned by a random
multiple of 90 degrees and the network says which (Gidaris et al. 2018, arXiv:1803.07728).

Differs: one random turn per image and step, where RotNet shows all four at once.
"""

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stages.core.devices import sent_to
from stages.core.intensities import from_pixels
from stages.core.shapes import Images, Labels
from stages.nn.classifier import Classifier
from stages.nn.rotation import NUM_ROTATIONS, rotate
from stages.stores.prepared import PreparedSplit
from stages.training.task import Task, Validation

__all__ = ["JudgeTask"]

VALIDATION_BATCH = 512


class LabelledImages(NamedTuple):
    """A batch; labels are None where the images have no classes."""

    images: Images
    labels: Labels | None


class JudgeTask(Task):
    """Classifier, its splits and its loss."""

    def __init__(
        self, network: Classifier, train: PreparedSplit, validation: PreparedSplit
    ) -> None:
        self.module = network
        self.num_examples = len(train.images)
        self._train, self._validation = train, validation

    def batch(self, rows: np.ndarray, device: torch.device) -> LabelledImages:
        """Rows of the training split."""
        return _read(self._train, rows, device)

    def loss(
        self, module: nn.Module, batch: LabelledImages, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Cross entropy in nats, and the accuracy on this batch."""
        images, answers = _exercise(batch, generator)
        logits = module(images)
        accuracy = (logits.argmax(dim=1) == answers).float().mean()
        return F.cross_entropy(logits, answers), {"accuracy": accuracy}

    def validate(self, module: nn.Module, device: torch.device, step: int) -> Validation:
        """Cross entropy (the criterion) and accuracy on the validation split."""
        loss, accuracy = self.judge(module, self._validation, device)
        return Validation(loss, {"loss": loss, "accuracy": accuracy})

    @torch.inference_mode()
    def judge(
        self, module: nn.Module, split: PreparedSplit, device: torch.device
    ) -> tuple[float, float]:
        """Mean cross entropy in nats, and accuracy, on a split (rotations: on all four turns)."""
        loss, right, count = 0.0, 0, 0
        for start in range(0, len(split.images), VALIDATION_BATCH):
            rows = np.arange(start, min(start + VALIDATION_BATCH, len(split.images)))
            for images, answers in _all_exercises(_read(split, rows, device)):
                logits = module(images).float()
                loss += F.cross_entropy(logits, answers, reduction="sum").item()
                right += int((logits.argmax(dim=1) == answers).sum())
                count += len(images)
        return loss / count, right / count

    @staticmethod
    def guessing(split: PreparedSplit) -> float:
        """Accuracy on a split of always giving the commonest answer, without looking."""
        if split.labels is None:
            return 1 / NUM_ROTATIONS
        return float(np.bincount(split.labels).max() / len(split.labels))


def _read(split: PreparedSplit, rows: np.ndarray, device: torch.device) -> LabelledImages:
    pixels = sent_to(torch.from_numpy(np.asarray(split.images[rows])), device)
    labels = None
    if split.labels is not None:
        labels = sent_to(torch.from_numpy(split.labels[rows]), device)
    return LabelledImages(from_pixels(pixels), labels)


def _exercise(batch: LabelledImages, generator: torch.Generator) -> tuple[Images, Labels]:
    if batch.labels is not None:
        return batch.images, batch.labels
    device = batch.images.device
    turns = torch.randint(NUM_ROTATIONS, (len(batch.images),), generator=generator, device=device)
    return rotate(batch.images, turns), turns


def _all_exercises(batch: LabelledImages) -> list[tuple[Images, Labels]]:
    if batch.labels is not None:
        return [(batch.images, batch.labels)]
    device, count = batch.images.device, len(batch.images)
    every = [torch.full((count,), turn, device=device) for turn in range(NUM_ROTATIONS)]
    return [(rotate(batch.images, turns), turns) for turns in every]
