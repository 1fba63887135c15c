"""What the two stages promise together, in nats and bits.

Codes c of an image are a function of it, so a code and its image are one event and

    -log p(x) <= -log p(x|c) - log p(c)                     codes
    -log p(x) <= E_q[-log p(x|z) + log q(z|x) - log p(z)]   posteriors: the ELBO of Kingma & Welling
                                                            2013, Eq. 2, with the learned prior for
                                                            p(z)

in bits per dimension after division by D log 2: only for a likelihood that is a probability of
8-bit images; of a density no such figure is given. The expectation is one draw per image from a
fixed stream, unbiased.

Densities change with the units. The prior models y = s z, the latents as stored, with n numbers
an image; the density in the autoencoder's own units is

    log p(z) = log p_stored(s z) + n log s

and all figures are in these units, so that the learned prior, the posteriors' standard prior and q
speak of one thing. Their differences do not depend on the units at all. The baseline beside every
prior figure is what stands there when nothing is learned: log K for each code, and for continuous
latents the prior the first stage was trained against (N(0, I) of Gaussians); the gain over it is
the prior hole that was filled.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor

from stages.bottlenecks.base import LatentSpec
from stages.core.shapes import ImageShape, Nats
from stages.metrics.base import Direction, Figure, Metric, Observation, Protocol
from stages.nn.posteriors import family_of

__all__ = ["TwoStageLikelihood", "own_units", "reference_log_prob"]


def own_units(log_prob_stored: Nats, spec: LatentSpec) -> Nats:
    """Density of stored latents -> density of the same latents in the autoencoder's own units.

    log p(z) = log p_stored(s z) + n log s; codes have no units.
    """
    return log_prob_stored.double() + spec.numbers * math.log(spec.scale)


def reference_log_prob(
    latents: Float[Tensor, "batch latent_channels grid_height grid_width"], spec: LatentSpec
) -> Nats:
    """Density of latents in own units under the prior they were charged against, nats per image."""
    family, numbers = family_of(spec.posterior, spec.reference), latents.double()
    return family.log_prob(family.standard(numbers), numbers).sum(dim=(1, 2, 3))


class TwoStageLikelihood(Metric):
    """Prior, rate, distortion, and the bound on the images they make together."""

    title = "Likelihood"

    def __init__(self, spec: LatentSpec, image: ImageShape, discretized: bool) -> None:
        """See the module.

        Args:
            spec: What the prior models.
            image: Shape of the images: D of the bits per dim.
            discretized: Whether p(x|z) is a probability of 8-bit images.
        """
        self.spec, self.image, self.discretized = spec, image, discretized
        self.images = 0
        self._prior = self._baseline = self._posterior = self._distortion = 0.0

    def update(self, seen: Observation) -> None:
        """Take in one batch."""
        self.images += len(seen.images)
        self._prior -= seen.log_prior.double().sum().item()
        self._distortion += seen.distortion.double().sum().item()
        if seen.latents is None:
            self._baseline += len(seen.images) * self.spec.tokens * math.log(self.spec.num_codes)
            return
        self._baseline -= reference_log_prob(seen.latents, self.spec).sum().item()
        if seen.posterior is not None:
            density = seen.posterior.log_prob(seen.latents).sum(dtype=torch.float64)
            self._posterior += density.item()

    def figures(self, protocol: Protocol) -> list[Figure]:
        """Prior and baseline; rate where there is a posterior; bits per dim where they exist."""
        how = protocol.also(latents=self._draws)
        result = [*self._prior_figures(how), *self._rate_figures(how)]
        result.append(
            self._per_image("distortion", self._distortion, "lower", how.also(of="-log p(x|z)"))
        )
        # A point of continuous space has probability 0: the bound would be infinite.
        points = self.spec.kind == "continuous" and self.spec.deterministic
        if self.discretized and not points:
            result.append(self._bits_per_dim(how))
        return result

    @property
    def _reference(self) -> str:
        return family_of(self.spec.posterior, self.spec.reference).prior_name

    @property
    def _draws(self) -> str:
        if self.spec.kind == "codes":
            return "codes of the image (deterministic)"
        if self.spec.deterministic:
            return "points, in the autoencoder's own units"
        return "one draw of q(z|x) per image, in the autoencoder's own units"

    def _prior_figures(self, how: Protocol) -> list[Figure]:
        continuous = self.spec.kind == "continuous"
        reference = self._reference if continuous else "uniform over the codes"
        baseline = how.also(baseline=reference)
        gain = self._baseline - self._prior
        result = [
            self._per_image("prior", self._prior, "lower", how),
            self._per_image("prior_baseline", self._baseline, "none", baseline),
            self._per_image("prior_gain", gain, "higher", baseline),
        ]
        if continuous:
            return result
        per_code = 1.0 / (self.images * self.spec.tokens * math.log(2))
        bits, unit = self._prior * per_code, "bits per code"
        uniform = self._baseline * per_code
        only = how.also(comparable="within one autoencoder only")
        return [
            *result,
            Figure("prior_bits_per_code", bits, unit, "lower", self.images, only),
            Figure("prior_baseline_bits_per_code", uniform, unit, "none", self.images, baseline),
        ]

    def _rate_figures(self, how: Protocol) -> list[Figure]:
        if self.spec.kind == "codes" or self.spec.deterministic:
            return []
        rate = self._posterior + self._prior
        normal = self._posterior + self._baseline
        of = f"E_q[log q - log p_0], p_0 = {self._reference}"
        return [
            self._per_image("rate", rate, "lower", how.also(of="E_q[log q - log p_prior]")),
            self._per_image("rate_baseline", normal, "none", how.also(of=of)),
        ]

    def _bits_per_dim(self, how: Protocol) -> Figure:
        total = self._distortion + self._posterior + self._prior
        bits = total / (self.images * self.image.dims * math.log(2))
        bound = "two-stage code length" if self.spec.kind == "codes" else "ELBO with learned prior"
        return Figure(
            "total_bits_per_dim",
            bits,
            "bits per dim",
            "lower",
            self.images,
            how.also(bound=f"upper bound on -log2 p(x) / D: {bound}", dims=self.image.dims),
        )

    def _per_image(self, name: str, total: float, direction: Direction, how: Protocol) -> Figure:
        return Figure(
            f"{name}_nats", total / self.images, "nats per image", direction, self.images, how
        )
