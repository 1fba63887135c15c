"""Whether an image shows the class that was asked for, as a judge sees it.

The share of images that a classifier trained on the same training split takes for the class asked
for. The judge errs too: its accuracy on real test images stands beside, and is about the best a
perfect sampler could reach. (The idea behind the Classification Accuracy Score of Ravuri & Vinyals
2019, arXiv:1905.10887, the other way round: there a classifier is trained on samples.)
"""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stages.core.shapes import Labels
from stages.metrics.base import Figure, Protocol
from stages.metrics.intervals import EXACT, exact_interval

__all__ = ["ClassAccuracy"]


class ClassAccuracy:
    """Right and wrong guesses per class.

    Attributes:
        asked: Images per class, int64 (num_classes,).
        right: Those the judge agrees with, int64 (num_classes,).
    """

    asked: np.ndarray
    right: np.ndarray

    def __init__(self, num_classes: int) -> None:
        self.asked = np.zeros(num_classes, dtype=np.int64)
        self.right = np.zeros(num_classes, dtype=np.int64)

    def update(self, logits: Float[Tensor, "batch num_classes"], labels: Labels) -> None:
        """Take in the judge's logits and the classes asked for."""
        hits = logits.argmax(dim=1) == labels
        size = len(self.asked)
        self.asked += torch.bincount(labels, minlength=size).cpu().numpy()
        self.right += torch.bincount(labels[hits], minlength=size).cpu().numpy()

    @property
    def accuracy(self) -> float:
        """Share of all images that show their class."""
        return float(self.right.sum() / self.asked.sum())

    @property
    def per_class(self) -> np.ndarray:
        """Share of each class, float64 (num_classes,); NaN where no image was asked for."""
        asked = np.where(self.asked > 0, self.asked, np.nan)
        return self.right / asked

    def figure(self, name: str, protocol: Protocol) -> Figure:
        """The accuracy over all classes, with its exact interval."""
        n = int(self.asked.sum())
        return Figure(
            name,
            self.accuracy,
            "share",
            "higher",
            n,
            protocol.also(interval=EXACT),
            interval=exact_interval(int(self.right.sum()), n),
        )
