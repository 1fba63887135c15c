"""Every code grid equally probable: log p(c) = -tokens log K.

Nothing is learned. It is the rate that codes cost without a prior, and the baseline that every
learned prior must beat.
"""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.shapes import Codes, Labels, Nats
from stages.heads.base import CHOICES, HeadOptions, SamplerSettings
from stages.nn.completion import Completion, KnownLatents, completion_of_independent_cells
from stages.nn.schedules import Step
from stages.priors.base import Prior, PriorOptions

__all__ = ["UniformOptions", "UniformPrior"]


class UniformOptions(PriorOptions):
    """It has no numbers to choose."""

    kind: Literal["uniform"]
    models: ClassVar[tuple[LatentKind, ...]] = ("codes",)
    trainable: ClassVar[bool] = False
    has_head: ClassVar[bool] = False
    # Neither classes nor modes to choose among.
    meaningless: ClassVar[tuple[str, ...]] = (*CHOICES, "guidance")


class UniformPrior(Prior):
    """Independent codes, uniform over the codebook; it knows no classes."""

    num_classes = 0

    def __init__(
        self, options: UniformOptions, head: HeadOptions, spec: LatentSpec, num_classes: int
    ) -> None:
        super().__init__(options, head, spec, num_classes)
        self.noise_shape = (spec.tokens, 1)

    def log_prob(self, latents: Codes, labels: Labels | None) -> Nats:
        """The same for every grid: -tokens log K nats."""
        rate = self.spec.tokens * math.log(self.spec.num_codes)
        return torch.full((len(latents),), -rate, device=latents.device)

    def loss(
        self, latents: Codes, labels: Labels | None, step: Step | None = None
    ) -> Float[Tensor, ""]:
        """log K nats per token; a constant."""
        return -self.log_prob(latents, labels).mean() / self.spec.tokens

    def sample(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        settings: SamplerSettings,
    ) -> Codes:
        """Codes floor(K u), for whoever chooses so; temperature changes nothing in a uniform one.

        Raises:
            ParamsError: If temperature, guidance or truncation is asked for.
        """
        self.check_settings(settings)
        logits = torch.zeros(len(uniforms), self.spec.num_codes, device=uniforms.device)
        codes = [settings.choose(logits, numbers) for numbers in uniforms[:, :, 0].unbind(dim=1)]
        return torch.stack(codes, dim=1).unflatten(1, (self.spec.grid_height, self.spec.grid_width))

    def complete(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        settings: SamplerSettings,
        known: KnownLatents,
    ) -> Completion:
        """Draws beside the known cells, which tell them nothing."""
        return completion_of_independent_cells(self.sample(labels, uniforms, settings), known)
