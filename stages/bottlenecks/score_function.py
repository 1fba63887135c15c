"""Codes drawn outright: the discrete variational autoencoder by REINFORCE.

Each cell's code is drawn from q = softmax(logits) over K codes; the decoder sees its vector. The
draw has no gradient, so the encoder learns from what each draw cost:

    gradient = E_q[(d(c) - b(x)) * gradient of log q(c given x)],   d(c) = -log p(x given c)
    kl = log K + sum over k of q_k log q_k      to the uniform prior, nats per cell, exact

(Williams 1992; Mnih & Gregor 2014, arXiv:1402.0030, Eq. 6-8, for variational autoencoders) with a
baseline b that is learned and looks at the input (stages/nn/score_function.py). What of an image's
cost no draw moves, as the KL, changes nothing on average; the baseline learns it. Codebook and
decoder have their ordinary gradient at the codes drawn. Outside training, the most probable code.

Nothing is relaxed: unlike Gumbel-Softmax the gradient is right on average, at any number of codes.
It is also by far the noisiest: one number per image tells all its cells how they did, so the noise
grows with the grid. Meant for small grids and codebooks and as the measure of the other
estimators (docs/gradient_estimators.md).

Differs: one draw per image and step; the KL is summed, not drawn; the signal keeps its unit
instead of being divided by its running standard deviation.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from stages.bottlenecks.base import Bottleneck, Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.shapes import Codes, Features, FeatureShape, Nats
from stages.nn.categorical import CodeLogits, draw_codes, kl_to_uniform, log_prob
from stages.nn.codebook import code_counts, perplexity, vectors_of
from stages.nn.projections import features_from_latents
from stages.nn.schedules import Step
from stages.nn.score_function import LearnedBaseline, score_function_loss

__all__ = ["ScoreFunction", "ScoreFunctionOptions"]

_START_STD = 1.0


class ScoreFunctionOptions(BottleneckOptions):
    """Parameters of codes by REINFORCE."""

    latents = "codes"

    kind: Literal["score_function"]
    num_codes: int = Field(ge=2)
    """Codes to choose from in each cell."""
    dim: int = Field(ge=1)
    """Numbers per vector of the codebook."""
    baseline_width: int = Field(ge=1)
    """Hidden units of the baseline's network."""
    baseline_decay: float = Field(ge=0, lt=1)
    """Of the running mean and variance of the costs, per step."""

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """A grid of codes, one per cell of the features."""
        return LatentSpec("codes", features.grid_height, features.grid_width, self.num_codes)


class ScoreFunction(Bottleneck):
    """Logits, a draw, a look-up, and a baseline beside them.

    Attributes:
        codebook: The vectors, (num_codes, dim).
        baseline: What an image is expected to cost.
    """

    def __init__(self, options: ScoreFunctionOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.options = options
        self.spec = options.latent_spec(features)
        self.logits = CodeLogits(features, options.num_codes, _START_STD)
        self.codebook = nn.Parameter(torch.randn(options.num_codes, options.dim))
        self.project_out = features_from_latents("spatial", features, options.dim)
        self.baseline = LearnedBaseline(
            features.width, options.baseline_width, options.baseline_decay
        )
        self._features: Tensor | None = None

    def forward(
        self,
        features: Features,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Bottlenecked:
        """Drawn codes in training, the most probable ones otherwise, and log q of them."""
        with torch.autocast(features.device.type, enabled=False):
            features = features.float()
            logits = self.logits(features)
            codes = draw_codes(logits, generator) if self.training else logits.argmax(dim=-1)
            decoded = self.project_out(vectors_of(codes, self.codebook))
            kl = kl_to_uniform(logits)
            log_posterior = log_prob(logits, codes).sum(dim=(1, 2))
        # What the baseline will look at once the cost is known.
        self._features = features.detach() if self.training else None
        return Bottlenecked(
            features=decoded,
            kl=kl.unsqueeze(1),
            auxiliary=kl.new_zeros(()),
            codes=codes,
            log_posterior=log_posterior,
            statistics={
                "code_perplexity": perplexity(code_counts(codes, self.options.num_codes)),
                "baseline_nats": self.baseline.mean.clone(),
                "cost_std_nats": self.baseline.variance.sqrt(),
            },
        )

    def surrogate(self, passed: Bottlenecked, cost: Nats) -> Float[Tensor, ""]:
        """The score function's loss and the baseline's own; both worth 0, for their gradients.

        The loss of a step stays what it says it is, and outside training nothing is added.
        """
        if not self.training:
            return cost.new_zeros(())
        assert self._features is not None and passed.log_posterior is not None
        with torch.autocast(cost.device.type, enabled=False):
            signal, regression = self.baseline(self._features, cost.float())
            score = score_function_loss(passed.log_posterior, signal)
        return score + regression - regression.detach()

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

    @torch.no_grad()
    def after_step(self, generator: torch.Generator) -> None:
        """Let the baseline's moments follow the costs of the step."""
        self.baseline.after_step()
