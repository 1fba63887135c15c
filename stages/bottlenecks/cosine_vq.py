"""Vector quantization by direction: low-dimensional codes on the unit sphere.

Vector and entry are both divided by their length before they are compared, so that the nearest
entry is the one of largest cosine (Yu et al. 2022, ViT-VQGAN, arXiv:2110.04627, section 3.2; Sun et
al. 2024, LlamaGen, arXiv:2406.06525: 8 numbers for 16384 codes):

    u = W f / |W f|,    code = argmax over k of <u, e_k>,    |e_k| = 1
    auxiliary = commitment_weight * mean |u - sg[e]|^2 = commitment_weight * mean (2 - 2 cos)

No vector can run away from the codebook by growing, and no entry is out of reach by its length.

Differs: entries follow by moving averages, as directions of running sums
(`stages.nn.ema_codebook`), instead of by gradient. On a sphere the gradient of an entry's raw
vector has no part along it, so that the raw vector only grows, and its direction turns ever more
slowly (Salimans & Kingma 2016, section 2.1); a running sum has no such drift, needs no codebook
loss, and is the same online k-means as `ema_vq`. K-means start and revival, both on the sphere. The
loss is of whole vectors, not a mean over their numbers: it does not shrink with `dim`. The decoder
gets sqrt(dim) * e, whose numbers have a mean square of 1, which is what layers start for. The
gradient may pass by rotation: on the sphere a rotation and nothing else.
"""

import math
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from stages.bottlenecks.base import Bottleneck, Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.shapes import Codes, Features, FeatureShape
from stages.nn.code_gradient import replaced
from stages.nn.codebook import Codebook, flat_vectors, nearest_codes, perplexity, vectors_of
from stages.nn.codebook_options import CodebookOptions
from stages.nn.ema_codebook import EMACodebook
from stages.nn.projections import features_from_latents, latents_from_features
from stages.nn.schedules import Step

__all__ = ["CosineVQOptions", "CosineVectorQuantizer"]

Directions = Float[Tensor, "batch dim grid_height grid_width"]


class CosineVQOptions(CodebookOptions, BottleneckOptions):
    """Parameters of vector quantization on the sphere."""

    latents = "codes"

    kind: Literal["cosine_vq"]
    dim: int = Field(ge=2)
    """Numbers per entry, of which one is spent on the length."""

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """A grid of codes, one per cell of the features."""
        return LatentSpec("codes", features.grid_height, features.grid_width, self.num_codes)


class CosineVectorQuantizer(Bottleneck):
    """Entries of largest cosine, from a codebook of running directions."""

    def __init__(self, options: CosineVQOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.options = options
        self.spec = options.latent_spec(features)
        self.project_in = latents_from_features("spatial", features, options.dim)
        self.project_out = features_from_latents("spatial", features, options.dim)
        self.codebook = EMACodebook(options, unit=True)

    def forward(
        self,
        features: Features,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Bottlenecked:
        """Quantize, with the commitment loss; in training, the codebook takes note."""
        with torch.autocast(features.device.type, enabled=False):
            latents = self._directions(features)
            codes, distances = nearest_codes(latents, self._entries)
            vectors = vectors_of(codes, self._entries)
            commitment_loss = (latents - vectors).square().sum(dim=1).mean()
            quantized = self._features(replaced(latents, vectors, self.options.gradient))
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
            return nearest_codes(self._directions(features), self._entries)[0]

    def decode(self, latents: Codes) -> Features:
        """Features of the codes' entries."""
        with torch.autocast(latents.device.type, enabled=False):
            return self._features(vectors_of(latents, self._entries))

    @property
    def _entries(self) -> Codebook:
        # The averaged weights that a training keeps hold means of directions, which are shorter.
        return F.normalize(self.codebook.entries, dim=1)

    def _directions(self, features: Features) -> Directions:
        return F.normalize(self.project_in(features.float()), dim=1)

    def _features(self, directions: Directions) -> Features:
        return self.project_out(math.sqrt(self.options.dim) * directions)

    @torch.no_grad()
    def start_from_data(self, features: Features, generator: torch.Generator) -> None:
        """Entries become the spherical k-means centres of these features' directions."""
        self.codebook.start(flat_vectors(self._directions(features)), generator)

    @torch.no_grad()
    def after_step(self, generator: torch.Generator) -> None:
        """The codebook follows the step; entries out of use move onto directions of it."""
        self.codebook.end_step(generator)
