"""Vector quantization with a codebook that follows its vectors by moving averages.

Instead of a gradient, each entry is the running mean of the vectors that chose it (van den Oord et
al. 2017, appendix A.1; `stages.nn.ema_codebook` has the equations), and only vectors are pulled:

    auxiliary = commitment_weight * mean (z - sg[e])^2

The mean is over all numbers of all vectors; the term is no log-probability and has no unit. It
stands beside nats per dim, where a Gaussian weighs squared errors by 1 / (2 sigma^2): several times
the weight they have in the paper, so that its commitment_weight of 0.25 lets vectors run away from
their entries, and about 1 is the counterpart.

Differs: vectors are projected to `dim` numbers first (Yu et al. 2022, section 3.2); k-means start
and revival; the gradient may pass by rotation instead of straight through.
"""

from typing import Literal

import torch
import torch.nn.functional as F

from stages.bottlenecks.base import Bottleneck, Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.shapes import Codes, Features, FeatureShape
from stages.nn.code_gradient import replaced
from stages.nn.codebook import flat_vectors, nearest_codes, perplexity, vectors_of
from stages.nn.codebook_options import CodebookOptions
from stages.nn.ema_codebook import EMACodebook
from stages.nn.projections import features_from_latents, latents_from_features
from stages.nn.schedules import Step

__all__ = ["EMAVQOptions", "EMAVectorQuantizer"]


class EMAVQOptions(CodebookOptions, BottleneckOptions):
    """Parameters of vector quantization by moving averages."""

    latents = "codes"

    kind: Literal["ema_vq"]

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """A grid of codes, one per cell of the features."""
        return LatentSpec("codes", features.grid_height, features.grid_width, self.num_codes)


class EMAVectorQuantizer(Bottleneck):
    """Nearest entries of a codebook of running means."""

    def __init__(self, options: EMAVQOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.options = options
        self.spec = options.latent_spec(features)
        self.project_in = latents_from_features("spatial", features, options.dim)
        self.project_out = features_from_latents("spatial", features, options.dim)
        self.codebook = EMACodebook(options, unit=False)

    def forward(
        self,
        features: Features,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Bottlenecked:
        """Quantize, with the commitment loss; in training, the codebook takes note."""
        with torch.autocast(features.device.type, enabled=False):
            latents = self.project_in(features.float())
            codes, distances = nearest_codes(latents, self.codebook.entries)
            vectors = vectors_of(codes, self.codebook.entries)
            commitment_loss = F.mse_loss(latents, vectors)
            quantized = self.project_out(replaced(latents, vectors, self.options.gradient))
            if self.training:
                self.codebook.follow(flat_vectors(latents.detach()), codes, distances)
        return Bottlenecked(
            features=quantized,
            kl=None,
            auxiliary=self.options.commitment_weight * commitment_loss,
            codes=codes,
            statistics={
                "commitment": commitment_loss.detach(),
                "code_perplexity": perplexity(self.codebook.use),
            },
        )

    def encode(self, features: Features) -> Codes:
        """The code of each cell."""
        with torch.autocast(features.device.type, enabled=False):
            latents = self.project_in(features.float())
            return nearest_codes(latents, self.codebook.entries)[0]

    def decode(self, latents: Codes) -> Features:
        """Features of the codes' entries."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.project_out(vectors_of(latents, self.codebook.entries))

    @torch.no_grad()
    def start_from_data(self, features: Features, generator: torch.Generator) -> None:
        """Entries become the k-means centres of these features' vectors."""
        self.codebook.start(flat_vectors(self.project_in(features.float())), generator)

    @torch.no_grad()
    def after_step(self, generator: torch.Generator) -> None:
        """The codebook follows the step; entries out of use move onto vectors of it."""
        self.codebook.end_step(generator)
