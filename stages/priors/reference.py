"""The prior the first stage was trained against, whatever its posteriors' family.

    log p(y) = log p_0(y / s) - n log s,    y the n latents as stored, s their scale

p_0 is the family's standard prior in the autoencoder's own units, to which its KL was taken:
N(0, 1) of Gaussians, Laplace(0, 1), Gamma(a_0, rate_0), Beta(a_0, b_0) (stages/nn/posteriors.py).
Nothing is learned: the baseline that shows the hole between prior and aggregate posterior. Each
number is drawn by the inverse distribution function from one uniform number; the variance
temperature multiplies the standard deviation and leaves the mean, within what the family allows.

Of Gaussians it is `standard_normal`.
"""

import math
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.shapes import Labels, Nats
from stages.heads.base import CHOICES, HeadOptions, SamplerSettings
from stages.nn.completion import Completion, KnownLatents, completion_of_independent_cells
from stages.nn.posteriors import family_of
from stages.nn.schedules import Step
from stages.priors.base import Prior, PriorOptions

__all__ = ["ReferenceOptions", "ReferencePrior"]


class ReferenceOptions(PriorOptions):
    """It has no numbers to choose: the latents say what they were charged against."""

    kind: Literal["reference"]
    models: ClassVar[tuple[LatentKind, ...]] = ("continuous",)
    trainable: ClassVar[bool] = False
    has_head: ClassVar[bool] = False
    # Neither classes nor modes to choose among.
    meaningless: ClassVar[tuple[str, ...]] = (*CHOICES, "guidance")


class ReferencePrior(Prior):
    """Independent numbers of the family's standard prior; it knows no classes."""

    num_classes = 0

    def __init__(
        self, options: ReferenceOptions, head: HeadOptions, spec: LatentSpec, num_classes: int
    ) -> None:
        super().__init__(options, head, spec, num_classes)
        self.noise_shape = (spec.tokens, spec.channels)
        self.family = family_of(spec.posterior, spec.reference)

    def log_prob(
        self,
        latents: Float[Tensor, "batch channels grid_height grid_width"],
        labels: Labels | None,
    ) -> Nats:
        """Log-density of the latents as stored, in nats per image; -inf outside its support."""
        own = latents.float() / self.spec.scale
        densities = self.family.log_prob(self.family.standard(own), own)
        return densities.sum(dim=(1, 2, 3)) - self.spec.numbers * math.log(self.spec.scale)

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
        """Quantiles of the standard prior, times the scale.

        Raises:
            ParamsError: If temperature, guidance or truncation is asked for.
        """
        self.check_settings(settings)
        numbers = self.family.standard_from_uniform(uniforms, settings.variance_temperature)
        grid = (self.spec.grid_height, self.spec.grid_width)
        return (self.spec.scale * numbers).mT.unflatten(2, grid).contiguous()

    def complete(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        settings: SamplerSettings,
        known: KnownLatents,
    ) -> Completion:
        """Draws beside the known cells, which tell them nothing."""
        return completion_of_independent_cells(self.sample(labels, uniforms, settings), known)
