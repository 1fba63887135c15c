"""The second stage as a task of the training loop.

Continuous latents are drawn afresh from each posterior at every step: a prior fitted to the means
would learn a distribution the decoder never saw (and put its mass on a thinner set than q fills).

Validation, early stopping and the choice of the best weights look at -log_prob, in nats, whatever
the loss is: exact, integrated or a bound, as the prior says (`Prior.log_prob_is`).
"""

import numpy as np
import torch
from torch import Tensor, nn

from stages.core.randomness import torch_stream
from stages.core.shapes import Labels
from stages.priors.base import Prior
from stages.stores.latents import LatentBatch, LatentSplit
from stages.training.task import Task, Validation

__all__ = ["PriorTask"]

VALIDATION_BATCH = 256


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
        return module(batch.draw(generator), self._labels(batch)), {}

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
