"""Vector quantization with a codebook that follows its vectors by moving averages.

Instead of a gradient, each entry is the running mean of the vectors that chose it (van den Oord et
al. 2017, appendix A.1), online k-means. With n_k vectors choosing entry k in a step:

    N_k <- decay N_k + (1 - decay) n_k            e_k = m_k / N_k
    m_k <- decay m_k + (1 - decay) sum of them

    auxiliary = commitment_weight * mean (z - sg[e])^2

The mean is over all numbers of all vectors; the term is no log-probability and has no unit. It
stands beside nats per dim, where a Gaussian weighs squared errors by 1 / (2 sigma^2): several times
the weight they have in the paper, so that its commitment_weight of 0.25 lets vectors run away from
their entries, and about 1 is the counterpart.

Differs: N_k in the quotient is smoothed as if every entry were seen a little more often (Laplace,
as in the authors' code); vectors are projected to `dim` numbers first (Yu et al. 2022, section
3.2); k-means start with N and m set to match; entries that fall out of use move onto recent
vectors, and their N and m with them, or the average would pull them straight back.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from stages.bottlenecks.base import Bottleneck, Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.shapes import Codes, Features, FeatureShape
from stages.nn.codebook import (
    code_counts,
    flat_vectors,
    kmeans_start,
    nearest_codes,
    perplexity,
    revival,
    straight_through,
    vectors_of,
)
from stages.nn.processes import from_first_process, sum_over_processes
from stages.nn.projections import features_from_latents, latents_from_features

__all__ = ["EMAVQOptions", "EMAVectorQuantizer"]

# Vectors by which every N_k is raised in the quotient; the authors' value.
_SMOOTHING = 1e-5


class EMAVQOptions(BottleneckOptions):
    """Parameters of vector quantization by moving averages."""

    latents = "codes"

    kind: Literal["ema_vq"]
    num_codes: int = Field(ge=2)
    """Entries of the codebook."""
    dim: int = Field(ge=1)
    """Numbers per entry."""
    commitment_weight: float = Field(ge=0)
    """Weight of the pull of vectors to their entries."""
    decay: float = Field(ge=0, lt=1)
    """Of the moving averages, per step: entries lag 1 / (1 - decay) steps behind their vectors;
    0.99 in the paper, less for a training of few steps."""
    revive_below: float = Field(ge=0, lt=1)
    """An entry used less than this share of uniform use is moved onto a recent vector; 0: never."""
    kmeans_iterations: int = Field(ge=0)
    """Passes of k-means at the start; 0: entries start on random vectors."""
    kmeans_vectors: int = Field(ge=1)
    """Vectors of the first, large batch that k-means looks at."""

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """A grid of codes, one per cell of the features."""
        return LatentSpec("codes", features.grid_height, features.grid_width, self.num_codes)


class EMAVectorQuantizer(Bottleneck):
    """Nearest entries of a codebook of running means.

    Attributes:
        codebook: The entries, (num_codes, dim); a buffer, no parameter.
        cluster_size: N, the running number of vectors per step that choose each entry.
        vector_sums: m, the running sum of them.
    """

    codebook: Float[Tensor, "codes dim"]
    cluster_size: Float[Tensor, " codes"]
    vector_sums: Float[Tensor, "codes dim"]

    def __init__(self, options: EMAVQOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.options = options
        self.spec = options.latent_spec(features)
        self.project_in = latents_from_features("spatial", features, options.dim)
        self.project_out = features_from_latents("spatial", features, options.dim)
        self.register_buffer("codebook", torch.randn(options.num_codes, options.dim))
        self.register_buffer("cluster_size", torch.ones(options.num_codes))
        self.register_buffer("vector_sums", self.codebook.clone())
        self._recent: tuple[Tensor, Tensor] | None = None

    def forward(self, features: Features, generator: torch.Generator | None = None) -> Bottlenecked:
        """Quantize, with the commitment loss; in training, the codebook follows afterwards."""
        with torch.autocast(features.device.type, enabled=False):
            latents = self.project_in(features.float())
            codes, distances = nearest_codes(latents, self.codebook)
            vectors = vectors_of(codes, self.codebook)
            commitment_loss = F.mse_loss(latents, vectors)
            quantized = self.project_out(straight_through(latents, vectors))
            if self.training:
                self._follow(codes.flatten(), flat_vectors(latents.detach()), distances)
        return Bottlenecked(
            features=quantized,
            rate=latents.new_zeros(len(latents)),
            auxiliary=self.options.commitment_weight * commitment_loss,
            codes=codes,
            statistics={
                "commitment": commitment_loss.detach(),
                "code_perplexity": perplexity(self.cluster_size),
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
    def _follow(self, codes: Tensor, vectors: Tensor, distances: Tensor) -> None:
        counts = sum_over_processes(code_counts(codes, len(self.codebook)))
        sums = torch.zeros_like(self.vector_sums).index_add_(0, codes, vectors)
        pull = 1 - self.options.decay
        self.cluster_size.lerp_(counts.to(self.cluster_size.dtype), pull)
        self.vector_sums.lerp_(sum_over_processes(sums), pull)
        total = self.cluster_size.sum()
        smoothed = (
            (self.cluster_size + _SMOOTHING) * total / (total + len(self.codebook) * _SMOOTHING)
        )
        self.codebook.copy_(self.vector_sums / smoothed[:, None])
        self._recent = vectors, distances

    @torch.no_grad()
    def start_from_data(self, features: Features, generator: torch.Generator) -> None:
        """Entries become the k-means centres of these features' vectors, N and m their sums."""
        vectors = flat_vectors(self.project_in(features.float()))
        options = self.options
        centres, counts = kmeans_start(
            vectors,
            options.kmeans_vectors,
            options.num_codes,
            options.kmeans_iterations,
            generator,
        )
        self.codebook.copy_(from_first_process(centres))
        self.cluster_size.copy_(from_first_process(counts))
        self.vector_sums.copy_(self.codebook * self.cluster_size[:, None])

    @torch.no_grad()
    def after_step(self, generator: torch.Generator) -> None:
        """Move entries out of use, with their averages, onto vectors of the last batch."""
        if self._recent is None or self.options.revive_below == 0:
            return
        uniform = self.cluster_size.mean()
        dead = self.cluster_size < self.options.revive_below * uniform
        moved, vectors = revival(dead, *self._recent, generator)
        # N of a uniformly used entry: time to be chosen before it is judged again.
        codebook = torch.where(moved[:, None], from_first_process(vectors), self.codebook)
        self.cluster_size.copy_(torch.where(moved, uniform, self.cluster_size))
        self.vector_sums.copy_(
            torch.where(moved[:, None], codebook * self.cluster_size[:, None], self.vector_sums)
        )
        self.codebook.copy_(codebook)
        self._recent = None
