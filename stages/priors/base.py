"""The family of priors p(latents given class).

Latents are what the latent data set stores: codes (batch, grid_height, grid_width) int64, several
grids of them as one row that `LatentSpec.parts` tells apart, or scaled continuous numbers (batch,
channels, grid_height, grid_width). Log-probabilities are nats per image, of the latents as stored.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import MemberOptions
from stages.core.shapes import Labels, Nats
from stages.heads.base import (
    EXACT,
    Exactness,
    HeadOptions,
    KnownTokens,
    SamplerSettings,
    TokenDraw,
)
from stages.nn.class_labels import rows_of_pass
from stages.nn.completion import Completion, KnownLatents
from stages.nn.schedules import Step

__all__ = [
    "AutoregressivePrior",
    "LatentsAndLabels",
    "Passes",
    "Prior",
    "PriorOptions",
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
    meaningless: ClassVar[tuple[str, ...]] = ()
    """Settings of the sampler that mean nothing to it, whatever the head."""
    in_turn: ClassVar[bool] = True
    """Whether tokens are drawn one by one, each from what is expected after those before."""

    def log_prob_is(self, head: HeadOptions) -> Exactness:
        """What kind of number `log_prob` is; default: what the head's is, exact without a head."""
        return head.log_prob_is if self.has_head else EXACT

    def check_settings(self, head: HeadOptions, settings: SamplerSettings) -> None:
        """Refuse settings of the sampler that mean nothing to the prior, or to its head.

        Args:
            head: The `head` section; without a say where the prior has no head.
            settings: What samples are to be drawn with.

        Raises:
            ParamsError: Naming the setting and the value it must have.
        """
        settings.require_neutral(self.meaningless, f"prior.kind {self.kind!r}")
        if self.has_head:
            head.check_settings(settings)

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
        self.check_settings = partial(options.check_settings, head)

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


class AutoregressivePrior(Prior):
    """A prior that draws its tokens one by one, each given all before it.

    To sample and to complete are one walk through the tokens: what differs is who says what the
    next token is.

    Attributes:
        label_dropout: How often training hid the class.
    """

    label_dropout: float

    @abstractmethod
    def walk(
        self,
        classes: Int[Tensor, " rows"],
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        draw: TokenDraw,
    ) -> Tensor:
        """Go through all tokens, with a cache; returns the latents.

        Args:
            classes: Of every row; twice as many rows as images in a guided pass, the second half
                without the class.
            uniforms: Numbers of each image, in the order of storage.
            draw: Says what each token is.
        """

    def in_order(
        self, stored: Shaped[Tensor, "batch *channels grid_height grid_width"]
    ) -> Shaped[Tensor, "batch tokens *channels"]:
        """Cells, or what is said of them, from the order of storage to that of the walk.

        Raster order; channels, where there are any, go behind the tokens.
        """
        return stored.flatten(1) if stored.dim() == 3 else stored.flatten(2).mT

    def sample(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        settings: SamplerSettings,
    ) -> Tensor:
        """Latents drawn token by token; under guidance both passes share a batch.

        Raises:
            ParamsError: If guidance is asked for without classes or without label dropout.
        """
        return self._walked(labels, uniforms, TokenDraw(settings, self.spec.tokens))

    def complete(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        settings: SamplerSettings,
        known: KnownLatents,
    ) -> Completion:
        """Exact where the known cells come before all others in the order of the walk.

        Raises:
            ParamsError: As for `sample`.
        """
        given = KnownTokens(self.in_order(known.latents), self.in_order(known.mask))
        draw = TokenDraw(settings, self.spec.tokens, given)
        latents = self._walked(labels, uniforms, draw)
        assert draw.log_weight is not None
        return Completion(latents, draw.log_weight, exact=given.come_first)

    @torch.no_grad()
    def _walked(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        draw: TokenDraw,
    ) -> Tensor:
        classes = rows_of_pass(
            labels, self.num_classes, self.label_dropout, draw.settings.guidance, uniforms
        )
        return self.walk(classes, uniforms, draw)

    def _stored(self, tokens: Shaped[Tensor, "batch tokens *channels"]) -> Tensor:
        """Back from raster order to the grid, channels first."""
        tokens = tokens if tokens.dim() == 2 else tokens.mT.contiguous()
        return tokens.unflatten(-1, (self.spec.grid_height, self.spec.grid_width))
