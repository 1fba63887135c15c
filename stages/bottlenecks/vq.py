"""Vector quantization with a codebook learned by gradient.

Each cell's vector z is replaced by the nearest entry e of a codebook; the gradient passes straight
through, and two terms pull entry and vector together (van den Oord et al. 2017, Eq. 3):

    auxiliary = mean (sg[z] - e)^2  +  commitment_weight * mean (z - sg[e])^2

Means are over all numbers of all vectors; the terms are no log-probabilities and have no unit. They
stand beside nats per dim, where a Gaussian weighs squared errors by 1 / (2 sigma^2): several times
the weight they have in the paper, so that its commitment_weight of 0.25 lets vectors run away from
their entries, and about 1 is the counterpart. The codebook term needs no weight: nothing else moves
the codebook.

Differs: vectors are projected to `dim` numbers first, as few are chosen more evenly (Yu et al.
2022, section 3.2); k-means start; entries that fall out of use move onto recent vectors. Their
moments in the optimiser are not reset: they decay within some hundred steps. The gradient may pass
by rotation instead of straight through.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stages.bottlenecks.base import Bottleneck, Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.shapes import Codes, Features, FeatureShape
from stages.nn.code_gradient import replaced
from stages.nn.codebook import (
    code_counts,
    flat_vectors,
    kmeans_start,
    nearest_codes,
    perplexity,
    revival,
    vectors_of,
)
from stages.nn.codebook_options import CodebookOptions
from stages.nn.processes import StepSums, from_first_process
from stages.nn.projections import features_from_latents, latents_from_features
from stages.nn.schedules import Step

__all__ = ["VQOptions", "VectorQuantizer"]


class VQOptions(CodebookOptions, BottleneckOptions):
    """Parameters of vector quantization by gradient."""

    latents = "codes"

    kind: Literal["vq"]

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """A grid of codes, one per cell of the features."""
        return LatentSpec("codes", features.grid_height, features.grid_width, self.num_codes)


class VectorQuantizer(Bottleneck):
    """Nearest entries of a learned codebook.

    Attributes:
        codebook: The entries, (num_codes, dim).
        use: Share of choices that fall on each entry, a moving average over training steps.
    """

    use: Float[Tensor, " codes"]

    def __init__(self, options: VQOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.options = options
        self.spec = options.latent_spec(features)
        self.project_in = latents_from_features("spatial", features, options.dim)
        self.project_out = features_from_latents("spatial", features, options.dim)
        self.codebook = nn.Parameter(torch.randn(options.num_codes, options.dim))
        self.register_buffer("use", torch.full((options.num_codes,), 1.0 / options.num_codes))
        self._step = StepSums()
        self._recent: tuple[Tensor, Tensor] | None = None

    def forward(
        self,
        features: Features,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Bottlenecked:
        """Quantize, with both losses; in training, use is counted."""
        with torch.autocast(features.device.type, enabled=False):
            latents = self.project_in(features.float())
            codes, distances = nearest_codes(latents, self.codebook)
            vectors = vectors_of(codes, self.codebook)
            commitment_loss = F.mse_loss(latents, vectors.detach())
            codebook_loss = F.mse_loss(vectors, latents.detach())
            quantized = self.project_out(replaced(latents, vectors, self.options.gradient))
        use = self.use
        if self.training:
            use = self._observe(codes, flat_vectors(latents.detach()), distances)
        return Bottlenecked(
            features=quantized,
            kl=None,
            auxiliary=codebook_loss + self.options.commitment_weight * commitment_loss,
            codes=codes,
            statistics={
                "commitment": commitment_loss.detach(),
                "code_perplexity": perplexity(use),
            },
        )

    def encode(self, features: Features) -> Codes:
        """The code of each cell."""
        with torch.autocast(features.device.type, enabled=False):
            return nearest_codes(self.project_in(features.float()), self.codebook)[0]

    def decode(self, latents: Codes) -> Features:
        """Features of the codes' entries."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.project_out(vectors_of(latents, self.codebook))

    @torch.no_grad()
    def _observe(self, codes: Codes, vectors: Tensor, distances: Tensor) -> Float[Tensor, " codes"]:
        """Take note of a piece of the step; the use as if the step had no other."""
        counts = code_counts(codes, self.options.num_codes)
        self._step.add(counts)
        # Of the first process this is the first piece of the step, whatever the others have.
        if self._recent is None:
            self._recent = vectors, distances
        return self.use.lerp(counts / counts.sum(), 1 - self.options.decay)

    @torch.no_grad()
    def start_from_data(self, features: Features, generator: torch.Generator) -> None:
        """Entries become the k-means centres of these features' vectors."""
        vectors = flat_vectors(self.project_in(features.float()))
        options = self.options
        centres, _ = kmeans_start(
            vectors,
            options.kmeans_vectors,
            options.num_codes,
            options.kmeans_iterations,
            generator,
        )
        self.codebook.copy_(from_first_process(centres))

    @torch.no_grad()
    def after_step(self, generator: torch.Generator) -> None:
        """Count the use of the step; move entries out of use onto vectors of its first piece."""
        taken, recent = self._step.take(), self._recent
        self._recent = None
        if taken is None or recent is None:
            return
        [counts] = taken
        self.use.lerp_(counts / counts.sum(), 1 - self.options.decay)
        if self.options.revive_below == 0:
            return
        uniform = 1 / self.options.num_codes
        dead = self.use < self.options.revive_below * uniform
        moved, vectors = revival(dead, *recent, generator)
        self.codebook.copy_(torch.where(moved[:, None], from_first_process(vectors), self.codebook))
        # The use of a uniformly used entry: time to be chosen before it is judged again.
        self.use.masked_fill_(moved, uniform)
