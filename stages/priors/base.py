"""The family of priors p(latents given class).

Latents are what the latent data set stores: codes (batch, grid_height, grid_width) int64, several
grids of them as one row that `LatentSpec.parts` tells apart, or scaled continuous numbers (batch,
channels, grid_height, grid_width). Log-probabilities are nats per image, of the latents as stored.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import MemberOptions
from stages.core.shapes import Labels, Nats
from stages.heads.base import EXACT, Exactness, HeadOptions, SamplerSettings
from stages.nn.schedules import Step

__all__ = [
    "Completion",
    "KnownLatents",
    "LatentsAndLabels",
    "Passes",
    "Prior",
    "PriorOptions",
    "completion_of_independent_cells",
    "refuse_settings",
]

LatentsAndLabels = tuple[Tensor, Labels | None]


@dataclass(frozen=True)
class Passes:
    """How a prior without gradients wants to be shown the training latents."""

    most: int
    """Passes over all of them."""
    draws: int
    """Draws of every posterior that make up a pass."""
    tolerance: float
    """Gain in nats per image below which passes are over."""


class PriorOptions(MemberOptions):
    """Base of the priors' options."""

    models: ClassVar[tuple[LatentKind, ...]]
    """The latents it can model."""
    trainable: ClassVar[bool]
    """Whether gradient steps train it; others learn nothing, or in passes (`Prior.fit_pass`)."""
    has_head: ClassVar[bool]
    """Whether the `head` section describes its tokens."""

    def log_prob_is(self, head: HeadOptions) -> Exactness:
        """What kind of number `log_prob` is; default: what the head's is, exact without a head."""
        return head.log_prob_is if self.has_head else EXACT

    def check_latents(self, spec: LatentSpec) -> None:
        """Refuse latents of a kind it cannot model; members may ask for more.

        Raises:
            ParamsError: Naming what it models and what is stored.
        """
        if spec.kind not in self.models:
            raise ParamsError(
                f"prior.kind: {self.kind!r} models {' or '.join(self.models)} latents, "
                f"but the bottleneck stores {spec.kind}; choose another prior or bottleneck"
            )


@dataclass(frozen=True)
class KnownLatents:
    """Cells of some images that are given."""

    latents: Tensor
    """As the prior's; where the mask is False they are not looked at."""
    mask: Bool[Tensor, "batch grid_height grid_width"]
    """True: given."""


@dataclass(frozen=True)
class Completion:
    """Latents whose given cells are as they were given."""

    latents: Tensor
    log_weight: Nats
    """log of p(all cells) over the probability with which the others were drawn, but for a
    constant, where these were drawn from the model itself: importance weights."""
    exact: bool
    """Whether the weights of every completion are equal: these are then draws of p(the other cells
    given the known ones), no more to be weighed."""


class Prior(nn.Module, ABC):
    """A distribution over latents.

    Attributes:
        spec: What it models.
        num_classes: Classes it can be conditioned on; 0: unconditional.
        noise_shape: Uniform(0, 1) numbers consumed per image when sampling: (tokens, per token).
        log_prob_is: What kind of number `log_prob` is.
        passes: How it learns by looking at the training latents; None: it does not.

    Raises:
        ParamsError: If the options say that it cannot model such latents.
    """

    spec: LatentSpec
    num_classes: int
    noise_shape: tuple[int, int]
    passes: Passes | None = None
    log_prob_is: Exactness

    @abstractmethod
    def __init__(self, options: Any, head: HeadOptions, spec: LatentSpec, num_classes: int) -> None:
        super().__init__()
        options.check_latents(spec)
        self.spec = spec
        self.log_prob_is = options.log_prob_is(head)

    @abstractmethod
    def log_prob(self, latents: Tensor, labels: Labels | None) -> Nats:
        """log p(latents given labels); labels None: without conditioning.

        `log_prob_is` says whether it is exact. Each number is a function of its own row only.
        """

    @abstractmethod
    def loss(
        self, latents: Tensor, labels: Labels | None, step: Step | None = None
    ) -> Float[Tensor, ""]:
        """Training loss, with label dropout where the options ask for it.

        Mean nats per token where `log_prob` is exact; other priors say what it is.

        Randomness comes from torch's global generator, which the training loop points at the
        stream of the step.

        Args:
            latents: As stored, drawn where they are posteriors.
            labels: Class of each image.
            step: Where schedules stand; None: as after the last step.
        """

    def forward(
        self, latents: Tensor, labels: Labels | None, step: Step | None = None
    ) -> Float[Tensor, ""]:
        """The training loss: what `torch.compile` and data-parallel wrappers call."""
        return self.loss(latents, labels, step)

    @torch.no_grad()
    def start_from_data(
        self, latents: Tensor, labels: Labels | None, generator: torch.Generator
    ) -> None:
        """Before the first pass of a prior that learns in passes; default: no-op.

        Args:
            latents: As many of the training split as fit in memory, evenly spaced.
            labels: Their classes.
            generator: Source of every draw.
        """

    @torch.no_grad()
    def fit_pass(self, batches: Iterable[LatentsAndLabels]) -> float:
        """Learn from one pass over the training split, without a gradient.

        Args:
            batches: All of it, in pieces; the same latents at every pass.

        Returns:
            -log p of them before the pass, mean nats per image.
        """
        raise AssertionError("only a prior with `passes` is shown any")

    @abstractmethod
    def sample(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        settings: SamplerSettings,
    ) -> Tensor:
        """Latents, each image a deterministic function of its label and its own uniforms.

        Raises:
            ParamsError: If the settings ask for what this prior cannot do (guidance without
                classes, say).
        """

    def complete(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        settings: SamplerSettings,
        known: KnownLatents,
    ) -> Completion:
        """`sample` with some cells given: the others are drawn, each from what comes before it.

        Cells that are known but come later are not looked at when those before them are drawn;
        `log_weight` says how well they fit (likelihood weighting: Fung & Chang 1990). Where all
        known cells come first the draw is exact.

        Raises:
            ParamsError: If this prior cannot, or as for `sample`.
        """
        raise ParamsError(
            f"{type(self).__name__} draws whole grids only and cannot complete one; choose an "
            "autoregressive prior to complete images (prior.kind: transformer, say)"
        )


def completion_of_independent_cells(drawn: Tensor, known: KnownLatents) -> Completion:
    """What `complete` is where cells tell nothing of each other: exact whatever the mask."""
    mask = known.mask if drawn.dim() == 3 else known.mask.unsqueeze(1)
    latents = torch.where(mask, known.latents, drawn)
    return Completion(latents, torch.zeros(len(drawn), device=drawn.device), exact=True)


def refuse_settings(kind: str, settings: SamplerSettings) -> None:
    """For priors without learned structure: what chooses among classes or modes means nothing.

    Raises:
        ParamsError: If guidance or temperature is not 1, or truncation would drop anything.
    """
    for name, value, neutral in (
        ("temperature", settings.temperature, 1),
        ("guidance", settings.guidance, 1),
        ("top_k", settings.top_k, 0),
        ("top_p", settings.top_p, 1),
        ("min_p", settings.min_p, 0),
    ):
        if value != neutral:
            raise ParamsError(
                f"sampling.{name}: must be {neutral} with prior.kind {kind!r}, "
                f"which has neither classes nor modes to choose; got {value} "
                "(the spread of continuous latents is sampling.variance_temperature)"
            )
