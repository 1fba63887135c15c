"""The prior a VAE was trained against: z ~ N(0, I) in the bottleneck's own units.

    log p(z) = -1/2 sum(z^2 / s^2 + log(2 pi s^2)),   z the latents as stored, s their scale

Stored latents are s times the bottleneck's own, so N(0, s^2 I) over what is stored is exactly
N(0, I) over what the bottleneck made. Nothing is learned: the baseline that shows the hole between
prior and aggregate posterior, and garbage for a deterministic autoencoder. Posteriors that are not
Gaussian were charged against another prior: `reference` is theirs.
"""

import math
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.errors import ParamsError
from stages.core.shapes import Labels, Nats
from stages.heads.base import CHOICES, HeadOptions, SamplerSettings
from stages.nn.completion import Completion, KnownLatents, completion_of_independent_cells
from stages.nn.inverse_cdf import normal_from_uniform
from stages.nn.schedules import Step
from stages.priors.base import Prior, PriorOptions

__all__ = ["StandardNormalOptions", "StandardNormalPrior"]


class StandardNormalOptions(PriorOptions):
    """It has no numbers to choose: the scale is the latents'."""

    kind: Literal["standard_normal"]
    models: ClassVar[tuple[LatentKind, ...]] = ("continuous",)
    trainable: ClassVar[bool] = False
    has_head: ClassVar[bool] = False
    # Neither classes nor modes to choose among.
    meaningless: ClassVar[tuple[str, ...]] = (*CHOICES, "guidance")

    def check_latents(self, spec: LatentSpec) -> None:
        """Refuse codes, and latents that were charged against another prior.

        Raises:
            ParamsError: Naming what it models and what is stored.
        """
        super().check_latents(spec)
        if spec.posterior != "gaussian":
            raise ParamsError(
                "prior.kind: 'standard_normal' models latents of gaussian posteriors, but the "
                f"bottleneck stores those of {spec.posterior} ones; use prior.kind: reference, the "
                "prior that they were charged against"
            )


class StandardNormalPrior(Prior):
    """Independent numbers from N(0, scale^2); it knows no classes."""

    num_classes = 0

    def __init__(
        self, options: StandardNormalOptions, head: HeadOptions, spec: LatentSpec, num_classes: int
    ) -> None:
        super().__init__(options, head, spec, num_classes)
        self.noise_shape = (spec.tokens, spec.channels)

    def log_prob(
        self,
        latents: Float[Tensor, "batch channels grid_height grid_width"],
        labels: Labels | None,
    ) -> Nats:
        """log N(latents; 0, scale^2 I) in nats per image."""
        log_normaliser = self.spec.numbers * math.log(self.spec.scale * math.sqrt(2 * math.pi))
        standardised = latents.float() / self.spec.scale
        return -0.5 * standardised.square().sum(dim=(1, 2, 3)) - log_normaliser

    def loss(
        self,
        latents: Float[Tensor, "batch channels grid_height grid_width"],
        labels: Labels | None,
        step: Step | None = None,
    ) -> Float[Tensor, ""]:
        """Mean nats per token; nothing to learn from it."""
        return -self.log_prob(latents, labels).mean() / self.spec.tokens

    def sample(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        settings: SamplerSettings,
    ) -> Float[Tensor, "batch channels grid_height grid_width"]:
        """Normal numbers times scale and variance temperature.

        Raises:
            ParamsError: If temperature, guidance or truncation is asked for.
        """
        self.check_settings(settings)
        numbers = normal_from_uniform(uniforms) * (self.spec.scale * settings.variance_temperature)
        return numbers.mT.unflatten(2, (self.spec.grid_height, self.spec.grid_width)).contiguous()

    def complete(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        settings: SamplerSettings,
        known: KnownLatents,
    ) -> Completion:
        """Draws beside the known cells, which tell them nothing."""
        return completion_of_independent_cells(self.sample(labels, uniforms, settings), known)
