"""Lookup-free quantization: a code is a row of bits, the signs of a cell's numbers.

    q = sign(z) in {-1, 1}^b,    code = sum over i of 2^i [z_i > 0]

No codebook is searched, so that alphabets may be large (Yu et al. 2023, MAGVIT-v2, section 3.1,
arXiv:2310.05737; the entropies are those of Jansen et al. 2020). What keeps the codes in use is a
loss on a soft choice p(c given z), proportional to exp(-|z - c|^2 / temperature):

    auxiliary = commitment_weight * mean (z - q)^2
              + sample_entropy_weight * E_z[ H(p(c given z)) ]                  be sure of each
              + batch_entropy_weight * ( b log 2 - H(E_z[ p(c given z) ]) )     and use them all

in nats, both exact. All c have the same length, so that p is a product of independent bits,
p(bit i) = sigmoid(4 z_i / temperature), and the first entropy the sum of b binary ones. The second
needs all 2^b probabilities; as p = a(high bits) * a'(low bits), their mean over n vectors is one
product of matrices, (2^(b/2), n) by (n, 2^(b/2)), and takes n 2^(b/2 + 1) + 2^b numbers of memory
instead of n 2^b.

The terms stand beside nats per dim. Without commitment the numbers grow without end, as nothing but
their signs is decoded, and the soft choice becomes sure of all of them: no entropy can then be
learned. Weights of about 1, 0.1 and 0.3 at temperature 1 keep numbers near their signs and codes in
use; with no weight on the entropies some codes stay unused.

Differs: the second entropy stands as a divergence from uniform use, which has the same gradient and
is never negative; it is not estimated bit by bit or on a part of the vectors, as implementations do
for large alphabets. With several processes each takes the mean over its own vectors.
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
from stages.nn.code_gradient import straight_through
from stages.nn.codebook import flat_vectors
from stages.nn.projections import features_from_latents, latents_from_features
from stages.nn.schedules import Step

__all__ = ["LookupFreeOptions", "LookupFreeQuantizer", "entropies"]

Bits = Float[Tensor, "batch bits grid_height grid_width"]


class LookupFreeOptions(BottleneckOptions):
    """Parameters of lookup-free quantization."""

    latents = "codes"

    kind: Literal["lookup_free"]
    num_bits: int = Field(ge=1, le=18)
    """Bits per cell: 2^num_bits codes; 18 is the largest published."""
    commitment_weight: float = Field(ge=0)
    """Weight of the pull of numbers to their signs."""
    sample_entropy_weight: float = Field(ge=0)
    """Weight of each vector's entropy of choice, which is made small."""
    batch_entropy_weight: float = Field(ge=0)
    """Weight of the lack of entropy of the batch's choices, which is made small."""
    temperature: float = Field(gt=0)
    """Of the soft choice: squared distance that divides odds by e. A bit is open where |z| is
    below about a quarter of it."""

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """A grid of codes, one per cell of the features."""
        return LatentSpec("codes", features.grid_height, features.grid_width, 2**self.num_bits)


class LookupFreeQuantizer(Bottleneck):
    """Signs of projected features.

    Attributes:
        place_values: What a bit counts in a code, (bits, 1, 1).
    """

    place_values: Tensor

    def __init__(self, options: LookupFreeOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.options = options
        self.spec = options.latent_spec(features)
        self.project_in = latents_from_features("spatial", features, options.num_bits)
        self.project_out = features_from_latents("spatial", features, options.num_bits)
        place_values = 2 ** torch.arange(options.num_bits).view(-1, 1, 1)
        self.register_buffer("place_values", place_values, persistent=False)

    def forward(
        self,
        features: Features,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Bottlenecked:
        """Take signs, with the commitment loss and both entropies."""
        options = self.options
        with torch.autocast(features.device.type, enabled=False):
            latents = self.project_in(features.float())
            codes = self._codes(latents)
            signs = self._signs(codes)
            commitment_loss = F.mse_loss(latents, signs)
            of_sample, of_batch = entropies(4 / options.temperature * flat_vectors(latents))
            missing = options.num_bits * math.log(2) - of_batch
            quantized = self.project_out(straight_through(latents, signs))
        return Bottlenecked(
            features=quantized,
            kl=None,
            auxiliary=options.commitment_weight * commitment_loss
            + options.sample_entropy_weight * of_sample
            + options.batch_entropy_weight * missing,
            codes=codes,
            statistics={
                "commitment": commitment_loss.detach(),
                "sample_entropy": of_sample.detach(),
                "batch_entropy": of_batch.detach(),
            },
        )

    def encode(self, features: Features) -> Codes:
        """The code of each cell."""
        with torch.autocast(features.device.type, enabled=False):
            return self._codes(self.project_in(features.float()))

    def decode(self, latents: Codes) -> Features:
        """Features of the codes' bits."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.project_out(self._signs(latents))

    def _codes(self, latents: Bits) -> Codes:
        return ((latents > 0) * self.place_values).sum(dim=1)

    def _signs(self, codes: Codes) -> Bits:
        bits = codes.unsqueeze(1) // self.place_values % 2
        return 2.0 * bits - 1.0


def entropies(
    logits: Float[Tensor, "vectors bits"],
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """E[H(p)] and H(E[p]) of rows of independent bits, over all 2^bits values, in nats.

    Args:
        logits: log odds of each bit of each vector.

    Returns:
        Mean entropy of a vector's choice, and the entropy of the mean choice; the second is never
        below the first.
    """
    chance = torch.sigmoid(logits)
    binary = -chance * F.logsigmoid(logits) - (1 - chance) * F.logsigmoid(-logits)
    low = logits.shape[1] // 2
    mean = _probabilities(logits[:, low:]).T @ _probabilities(logits[:, :low]) / len(logits)
    # entr'(p) = -log p - 1 is infinite at 0, where float32 puts what is below 1e-38.
    mean = mean.clamp_min(torch.finfo(mean.dtype).tiny)
    return binary.sum(dim=1).mean(), torch.special.entr(mean).sum()


def _probabilities(logits: Float[Tensor, "vectors bits"]) -> Float[Tensor, "vectors values"]:
    """Probability of each value of a row of independent bits; 1 for no bits."""
    bits = logits.shape[1]
    values = torch.arange(2**bits, device=logits.device)
    is_set = (values >> torch.arange(bits, device=logits.device)[:, None] & 1).to(logits.dtype)
    return torch.exp(F.logsigmoid(logits) @ is_set + F.logsigmoid(-logits) @ (1 - is_set))
