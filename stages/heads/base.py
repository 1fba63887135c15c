"""The family of heads: p(token given hidden state), for codes or continuous cells."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar

from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import MemberOptions
from stages.nn.inverse_cdf import index_from_uniform

__all__ = ["Head", "HeadOptions", "SamplerSettings"]


@dataclass(frozen=True)
class SamplerSettings:
    """How a token is drawn from its distribution."""

    temperature: float
    """Divides logits (codes, mixture weights), multiplies standard deviations; 1: the model's."""
    top_k: int
    """Keep the k most probable codes or components; 0: all."""
    top_p: float
    """Keep the smallest set with at least this probability; 1: all."""
    guidance: float
    """Classifier-free: log p(t) + guidance (log p(t|class) - log p(t)); 1: none, 0: no class."""

    def choose(
        self, logits: Float[Tensor, "batch num_codes"], uniforms: Float[Tensor, " batch"]
    ) -> Int[Tensor, " batch"]:
        """One code per row of what is left of its distribution; whoever codes chooses otherwise."""
        return index_from_uniform(logits, uniforms)


class HeadOptions(MemberOptions):
    """Base of the heads' options."""

    models: ClassVar[LatentKind]
    """The latents it can describe."""


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
        """log p(token given hidden) in nats per token; exact, float32."""

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
            settings: Temperature, truncation, guidance.

        Returns:
            (batch,) int64 codes, or (batch, channels) numbers.
        """
