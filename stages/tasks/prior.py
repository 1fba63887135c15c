"""The second stage as a task of the training loop.

Continuous latents are drawn afresh from each posterior at every step: a prior fitted to the means
would learn a distribution the decoder never saw (and put its mass on a thinner set than q fills).

Validation, early stopping and the choice of the best weights look at -log_prob, in nats, whatever
the loss is: exact, integrated or a bound, as the prior says (`Prior.log_prob_is`).
"""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor, nn

from stages.core.randomness import torch_stream
from stages.core.shapes import Labels
from stages.priors.base import LatentsAndLabels, Prior
from stages.stores.latents import LatentBatch, LatentSplit
from stages.training.task import Task, Validation

__all__ = ["PriorTask"]

VALIDATION_BATCH = 256
PASS_BATCH = 1024
# Latents that a start from data (k-means) looks at.
START_LATENTS = 2**14


class PriorTask(Task):
    """Minimise the prior's loss: mean -log p(latents given class) where that is at hand."""

    def __init__(
        self, prior: Prior, train: LatentSplit, validation: LatentSplit, seed: int
    ) -> None:
        """Join a prior with its latents.

        Args:
            prior: What is trained.
            train: Rows (views included) to learn from.
            validation: Rows that judge it and stop it early.
            seed: Root of the validation's draws.
        """
        self.module = prior
        self.train, self.validation, self.seed = train, validation, seed
        self.num_examples = len(train)

    def batch(self, rows: np.ndarray, device: torch.device) -> LatentBatch:
        """Stored latents (codes or posteriors) and labels of these rows."""
        return self.train.batch(rows).to(device)

    def loss(
        self, module: nn.Module, batch: LatentBatch, generator: torch.Generator, step: int
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The prior's loss, classes dropped as its options ask."""
        latents = batch.draw(generator)
        done = torch.full((), float(step), device=latents.device)
        return module(latents, self._labels(batch), done), {}

    def start_latents(self, device: torch.device) -> LatentsAndLabels:
        """Draws of some of the training split, evenly spaced, for a start from data."""
        count = min(START_LATENTS, self.num_examples)
        rows = np.linspace(0, self.num_examples - 1, count).astype(np.int64)
        batch = self.batch(rows, device)
        return batch.draw(torch_stream(self.seed, "start", device=device)), self._labels(batch)

    def pieces(self, draws: int, device: torch.device) -> Iterator[LatentsAndLabels]:
        """All of the training split, a piece at a time; every call gives the same draws.

        Args:
            draws: Of every posterior.
            device: Where to.
        """
        for start in range(0, self.num_examples, PASS_BATCH):
            rows = np.arange(start, min(start + PASS_BATCH, self.num_examples))
            batch = self.batch(rows, device)
            for draw in range(draws):
                stream = torch_stream(self.seed, "pass", start, draw, device=device)
                yield batch.draw(stream), self._labels(batch)

    def validate(self, module: nn.Module, device: torch.device, step: int) -> Validation:
        """-log_prob in nats per image over the validation split; draws are always the same."""
        count = len(self.validation)
        nats = 0.0
        for start in range(0, count, VALIDATION_BATCH):
            rows = np.arange(start, min(start + VALIDATION_BATCH, count))
            batch = self.validation.batch(rows).to(device)
            latents = batch.draw(torch_stream(self.seed, "validation", start, device=device))
            nats -= module.log_prob(latents, self._labels(batch)).double().sum().item()
        per_image = nats / count
        figures = {
            "nats_per_image": per_image,
            "nats_per_token": per_image / self.module.spec.tokens,
        }
        return Validation(per_image, figures)

    def _labels(self, batch: LatentBatch) -> Labels | None:
        return batch.labels if self.module.num_classes else None
