"""The family of heads: p(token given hidden state), for codes or continuous cells."""

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import MemberOptions
from stages.nn.inverse_cdf import index_from_uniform

__all__ = [
    "CHOICES",
    "EXACT",
    "Exactness",
    "GuidanceSchedule",
    "Head",
    "HeadOptions",
    "KnownTokens",
    "SamplerSettings",
    "TokenDraw",
]

GuidanceSchedule = Literal["constant", "linear", "cosine"]


@dataclass(frozen=True)
class Exactness:
    """What kind of number a `log_prob` is."""

    kind: Literal["exact", "approximate", "bound"]
    """The log-probability itself; the same but for an error of numerical integration; or a number
    whose mean over data is not above it, so that costs in nats are upper bounds."""
    how: str
    """For those who read the figures: how it is computed."""


EXACT = Exactness("exact", "exact")

CHOICES = ("temperature", "top_k", "top_p", "min_p")
"""Settings of choosing from a list: of codes, or of the components of a mixture."""


@dataclass(frozen=True)
class SamplerSettings:
    """How tokens are drawn from their distributions; as it stands: from the model itself."""

    temperature: float = 1.0
    """Divides logits, of codes and of mixture weights."""
    top_k: int = 0
    """Keep the k most probable codes or components; 0: all."""
    top_p: float = 1.0
    """Keep the smallest set with at least this probability; 1: all."""
    guidance: float = 1.0
    """Classifier-free: log p(t) + guidance (log p(t|class) - log p(t)); 1: none, 0: no class."""
    min_p: float = 0.0
    """Keep what is at least this times as probable as the most probable; 0: all."""
    variance_temperature: float = 1.0
    """Multiplies the standard deviations of numbers; codes have none."""
    guidance_schedule: GuidanceSchedule = "constant"
    """How guidance grows from 1 over the tokens: `at`."""
    guidance_power: float = 1.0
    """Exponent of the place in the sequence, before the schedule is applied."""
    guidance_interval: tuple[float, float] = (0.0, 1.0)
    """Places in the sequence between which tokens are guided."""

    def at(self, token: int, tokens: int) -> "SamplerSettings":
        """The settings of one token: numbers only, for heads.

            s = (token / tokens)^power
            guidance of the token = 1 + (guidance - 1) r(s),   r = 1 | s | (1 - cos(pi s)) / 2

        for the schedules constant, linear and cosine; 1 where token / tokens is not in
        [start, end). The power of a cosine is that of RAR (Yu et al. 2024, arXiv:2411.00776,
        `guidance_scale_pow` of its code), the interval that of Kynkaanniemi et al. 2024
        (arXiv:2404.07724), there over noise levels.

        Args:
            token: Its number in the order of generation, from 0.
            tokens: How many there are.
        """
        place = token / tokens
        start, end = self.guidance_interval
        guidance = self.guidance if start <= place < end else 1.0
        if self.guidance_schedule != "constant":
            grown = place**self.guidance_power
            if self.guidance_schedule == "cosine":
                grown = (1 - math.cos(math.pi * grown)) / 2
            guidance = 1 + (guidance - 1) * grown
        return replace(
            self,
            guidance=guidance,
            guidance_schedule="constant",
            guidance_power=1.0,
            guidance_interval=(0.0, 1.0),
        )

    def require_neutral(self, names: Sequence[str], member: str) -> None:
        """Refuse settings without a meaning.

        Args:
            names: Of settings.
            member: To which they mean nothing, in words.

        Raises:
            ParamsError: If one of them is not what it is by default.
        """
        usual = SamplerSettings()
        for name in names:
            came, wanted = getattr(self, name), getattr(usual, name)
            if came != wanted:
                spread = "; the spread of continuous latents is sampling.variance_temperature"
                raise ParamsError(
                    f"sampling.{name}: must be {wanted:g} with {member}, to which it means "
                    f"nothing{spread if name in CHOICES else ''}; got {came}"
                )

    def choose(
        self, logits: Float[Tensor, "batch num_codes"], uniforms: Float[Tensor, " batch"]
    ) -> Int[Tensor, " batch"]:
        """One code per row of what is left of its distribution; whoever codes chooses otherwise."""
        return index_from_uniform(logits, uniforms)


class HeadOptions(MemberOptions):
    """Base of the heads' options."""

    models: ClassVar[LatentKind]
    """The latents it can describe."""
    meaningless: ClassVar[tuple[str, ...]] = ()
    """Settings of the sampler that mean nothing for what it draws."""
    whole_codes: ClassVar[bool] = True
    """Whether a code is drawn in one piece, from a list of all codes."""

    @property
    def log_prob_is(self) -> Exactness:
        """What kind of number the head's `log_prob` is; default: exact."""
        return EXACT

    def check_settings(self, settings: SamplerSettings) -> None:
        """Refuse settings that mean nothing for what the head draws.

        Raises:
            ParamsError: Naming the setting and the value it must have.
        """
        settings.require_neutral(self.meaningless, f"head.kind {self.kind!r}")


class Head(nn.Module, ABC):
    """Reads tokens into the transformer's width, and hidden states into a distribution.

    Tokens are (batch, tokens) int64 for codes, (batch, tokens, channels) float for continuous.

    Attributes:
        noise_dim: Uniform(0, 1) numbers consumed per token when sampling.

    Raises:
        ParamsError: If the latents are not of the kind that the options say it can describe.
    """

    noise_dim: int

    @abstractmethod
    def __init__(self, options: Any, spec: LatentSpec, width: int) -> None:
        super().__init__()
        if options.models != spec.kind:
            raise ParamsError(
                f"head.kind: {options.kind!r} describes {options.models} latents, "
                f"but the bottleneck stores {spec.kind}; choose another head or bottleneck"
            )

    @abstractmethod
    def embed(self, tokens: Tensor) -> Float[Tensor, "batch tokens width"]:
        """Tokens as inputs of the transformer."""

    @abstractmethod
    def log_prob(
        self, hidden: Float[Tensor, "batch tokens width"], tokens: Tensor
    ) -> Float[Tensor, "batch tokens"]:
        """log p(token given hidden) in nats per token, float32: what the options say it is.

        Each number is a function of its own hidden state and token only.
        """

    def loss(
        self, hidden: Float[Tensor, "batch tokens width"], tokens: Tensor
    ) -> Float[Tensor, "batch tokens"]:
        """What training minimises, per token; default: -`log_prob`.

        Randomness comes from torch's global generator.
        """
        return -self.log_prob(hidden, tokens)

    @abstractmethod
    def sample(
        self,
        hidden: Float[Tensor, "batch width"],
        unconditional: Float[Tensor, "batch width"] | None,
        uniforms: Float[Tensor, "batch noise_dim"],
        settings: SamplerSettings,
    ) -> Tensor:
        """One token per row, a deterministic function of its row's uniforms.

        Args:
            hidden: State that predicts the token, given the class.
            unconditional: The same without the class; None when guidance is 1.
            uniforms: Numbers in (0, 1), `noise_dim` per row.
            settings: Those of this token (`SamplerSettings.at`): temperatures, truncation,
                guidance.

        Returns:
            (batch,) int64 codes, or (batch, channels) numbers.
        """


@dataclass(frozen=True)
class KnownTokens:
    """Tokens that are given and not drawn, in the order of generation."""

    tokens: Tensor
    """As a head takes them; where the mask is False they are not looked at."""
    mask: Bool[Tensor, "batch tokens"]
    """True: given."""

    @property
    def come_first(self) -> bool:
        """Whether no given token of any image comes after one to be drawn."""
        return not (self.mask[:, 1:] & ~self.mask[:, :-1]).any()


class TokenDraw:
    """Draws the tokens of one pass, called once for each in the order of generation.

    What differs from token to token is settled here, so that priors walk and heads draw.

    Attributes:
        log_weight: log p(known tokens, each given all before it and the class), nats per image, of
            the model itself; complete when the pass is.

    Args:
        settings: Of the whole sequence.
        tokens: Its length.
        known: Tokens that take the place of what is drawn; None: all are drawn.
    """

    log_weight: Tensor | None

    def __init__(
        self, settings: SamplerSettings, tokens: int, known: KnownTokens | None = None
    ) -> None:
        self.settings, self.tokens, self.known = settings, tokens, known
        self.log_weight = None if known is None else torch.zeros(len(known.mask))
        self.drawn = 0

    def __call__(
        self,
        head: Head,
        hidden: Float[Tensor, "rows width"],
        uniforms: Float[Tensor, "batch noise_dim"],
    ) -> Tensor:
        """The next token of every image.

        Args:
            head: Draws it.
            hidden: State that predicts it; twice as many rows as images in a guided pass, the
                second half without the class.
            uniforms: Numbers in (0, 1) of each image for this token.

        Returns:
            (batch,) int64 codes, or (batch, channels) numbers.
        """
        settings = self.settings.at(self.drawn, self.tokens)
        conditional, unconditional = hidden, None
        if len(hidden) > len(uniforms):
            conditional, unconditional = hidden.chunk(2)
        guided = None if settings.guidance == 1 else unconditional
        token = head.sample(conditional, guided, uniforms, settings)
        if self.known is not None:
            token = self._known_or(token, head, conditional)
        self.drawn += 1
        return token

    def _known_or(
        self, drawn: Tensor, head: Head, conditional: Float[Tensor, "batch width"]
    ) -> Tensor:
        assert self.known is not None and self.log_weight is not None
        given, mask = self.known.tokens[:, self.drawn], self.known.mask[:, self.drawn]
        nats = head.log_prob(conditional.unsqueeze(1), given.unsqueeze(1)).squeeze(1)
        self.log_weight = self.log_weight.to(nats) + nats.masked_fill(~mask, 0)
        return torch.where(mask.view(-1, *[1] * (drawn.dim() - 1)), given, drawn)
