"""Codes by Gumbel-Softmax: the discrete variational autoencoder with a path for the gradient.

Each cell has a distribution q = softmax(logits) over K codes; the decoder sees a mixture of the
codebook's vectors e_k,

    v = sum over k of y_k e_k,    y = softmax((logits + g) / tau),   g ~ Gumbel(0, 1)
    kl = log K + sum over k of q_k log q_k      to the uniform prior, nats per cell

(Jang et al. 2016, arXiv:1611.01144; Maddison et al. 2016, arXiv:1611.00712). `soft` gives the
decoder y; `straight_through` its one-hot code, with the gradient of y. The temperature falls on a
cosine from tau_start to tau_end over tau_steps, in DALL-E from 1 to 1/16 over 150,000 (Ramesh et
al. 2021, arXiv:2102.12092, appendix A.2). Outside training, the code of the largest logit, without
noise: what is stored is what is judged.

No code is revived: one that falls out of use is lost. What keeps codes in use is the KL, which pays
for undecided cells (a weight near 1, annealed, saves more codes than one of 0.1), and a temperature
that starts warm and does not end cold (2 to 0.5 for `straight_through`).

With distortion under that code and KL of q, the loss of a validation is no bound on the
likelihood; the two-stage bound under a learned prior is.

Differs: the KL is that of q and not of y's density, as in DALL-E and in Jang et al.; logits start
level over the data (stages/nn/categorical.py); vectors of `dim` numbers are projected to the
decoder's width.
"""

from typing import Literal

import torch
from pydantic import Field, model_validator
from torch import nn

from stages.bottlenecks.base import Bottleneck, Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.shapes import Codes, Features, FeatureShape
from stages.nn.categorical import (
    CodeLogits,
    kl_to_uniform,
    relaxed_codes,
    straight_through_codes,
)
from stages.nn.codebook import code_counts, perplexity, vectors_of
from stages.nn.projections import features_from_latents
from stages.nn.schedules import Step, ramp

__all__ = ["Gumbel", "GumbelOptions"]

# Above the noise's own 1.28: at 1, half as many codes of digits came to mean anything.
_START_STD = 2.0


class GumbelOptions(BottleneckOptions):
    """Parameters of codes by Gumbel-Softmax."""

    latents = "codes"

    kind: Literal["gumbel"]
    num_codes: int = Field(ge=2)
    """Codes to choose from in each cell."""
    dim: int = Field(ge=1)
    """Numbers per vector of the codebook."""
    estimator: Literal["straight_through", "soft"]
    """What the decoder is trained on: one-hot codes, or mixtures of them."""
    tau_start: float = Field(gt=0)
    """Temperature at the first step."""
    tau_end: float = Field(gt=0)
    """Temperature from `tau_steps` on; 1/16 in DALL-E. Not above `tau_start`."""
    tau_steps: int = Field(ge=0)
    """Steps the temperature takes to fall; 0: `tau_end` throughout."""

    @model_validator(mode="after")
    def _check(self) -> "GumbelOptions":
        if self.tau_end > self.tau_start:
            raise ValueError(
                "tau_end must not exceed tau_start, the temperature falls; "
                f"got {self.tau_start} to {self.tau_end}; exchange them"
            )
        return self

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """A grid of codes, one per cell of the features."""
        return LatentSpec("codes", features.grid_height, features.grid_width, self.num_codes)


class Gumbel(Bottleneck):
    """Logits, a relaxed draw, and a mixture of the codebook.

    Attributes:
        codebook: The vectors, (num_codes, dim).
    """

    def __init__(self, options: GumbelOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.options = options
        self.spec = options.latent_spec(features)
        self.logits = CodeLogits(features, options.num_codes, _START_STD)
        self.codebook = nn.Parameter(torch.randn(options.num_codes, options.dim))
        self.project_out = features_from_latents("spatial", features, options.dim)

    def forward(
        self,
        features: Features,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Bottlenecked:
        """Relaxed codes in training, hard ones otherwise, and the KL of their distribution."""
        options = self.options
        falling = ramp(step, options.tau_steps, "cosine")
        tau = options.tau_start + (options.tau_end - options.tau_start) * falling
        with torch.autocast(features.device.type, enabled=False):
            logits = self.logits(features.float())
            kl = kl_to_uniform(logits)
            if self.training:
                mixture = relaxed_codes(logits, tau, generator)
                codes = mixture.argmax(dim=-1)
                if options.estimator == "straight_through":
                    mixture = straight_through_codes(mixture)
                vectors = (mixture @ self.codebook).permute(0, 3, 1, 2)
            else:
                codes = logits.argmax(dim=-1)
                vectors = vectors_of(codes, self.codebook)
            decoded = self.project_out(vectors)
        return Bottlenecked(
            features=decoded,
            kl=kl.unsqueeze(1),
            auxiliary=kl.new_zeros(()),
            codes=codes,
            statistics={
                "tau": tau,
                "code_perplexity": perplexity(code_counts(codes, options.num_codes)),
            },
        )

    def encode(self, features: Features) -> Codes:
        """The most probable code of each cell."""
        with torch.autocast(features.device.type, enabled=False):
            return self.logits(features.float()).argmax(dim=-1)

    def decode(self, latents: Codes) -> Features:
        """Features of the codes' vectors."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.project_out(vectors_of(latents, self.codebook))

    @torch.no_grad()
    def start_from_data(self, features: Features, generator: torch.Generator) -> None:
        """Level the logits over these features."""
        self.logits.start_from_data(features.float())
