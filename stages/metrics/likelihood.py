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
the prior hole that was filled. The bounds stand side by side, of the same draws:

    total = distortion + rate                   under the learned prior
    total_baseline = distortion + rate_baseline      under the baseline
    total_baseline - total = prior_gain
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


HOLE = "the prior hole that was filled: baseline - learned, of the same latents"


class TwoStageLikelihood(Metric):
    """Prior, rate, distortion, and the bound on the images they make together."""

    title = "Likelihood"

    def __init__(
        self,
        spec: LatentSpec,
        image: ImageShape,
        discretized: bool,
        draws_targets: bool = False,
    ) -> None:
        """See the module.

        Args:
            spec: What the prior models.
            image: Shape of the images: D of the bits per dim.
            discretized: Whether p(x|z) is a probability of 8-bit images.
            draws_targets: Whether training draws the x of p(x|z), which here are those of the
                latents as they are stored: without a draw.
        """
        self.draws_targets = draws_targets
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
        if self.draws_targets:
            how = how.also(target="as the likelihood makes it of each image without a draw")
        result = [*self._prior_figures(how), *self._rate_figures(how)]
        result.append(
            self._per_image("distortion", self._distortion, "lower", how.also(of="-log p(x|z)"))
        )
        # A point of continuous space has probability 0: the bound would be infinite.
        points = self.spec.kind == "continuous" and self.spec.deterministic
        return result if points else [*result, *self._total_figures(how)]

    @property
    def _reference(self) -> str:
        return family_of(self.spec.posterior, self.spec.reference).prior_name

    @property
    def _baseline_name(self) -> str:
        continuous = self.spec.kind == "continuous"
        return self._reference if continuous else "uniform over the codes"

    @property
    def _draws(self) -> str:
        if self.spec.kind == "codes":
            return "codes of the image (deterministic)"
        if self.spec.deterministic:
            return "points, in the autoencoder's own units"
        return "one draw of q(z|x) per image, in the autoencoder's own units"

    def _prior_figures(self, how: Protocol) -> list[Figure]:
        continuous = self.spec.kind == "continuous"
        baseline = how.also(baseline=self._baseline_name)
        gain = self._baseline - self._prior
        result = [
            self._per_image("prior", self._prior, "lower", how),
            self._per_image("prior_baseline", self._baseline, "none", baseline),
            self._per_image("prior_gain", gain, "higher", baseline.also(of=HOLE)),
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

    def _total_figures(self, how: Protocol) -> list[Figure]:
        """The bound under the learned prior and under the baseline, of the same draws."""
        given = self._distortion + self._posterior
        bound = "two-stage code length" if self.spec.kind == "codes" else "ELBO"
        result = []
        for name, total, prior, direction in (
            ("total", given + self._prior, "the learned prior", "lower"),
            ("total_baseline", given + self._baseline, self._baseline_name, "none"),
        ):
            told = f"upper bound on -log p(x): {bound} under {prior}"
            result.append(self._per_image(name, total, direction, how.also(bound=told)))
            if self.discretized:
                bits = total / (self.images * self.image.dims * math.log(2))
                told = f"upper bound on -log2 p(x) / D: {bound} under {prior}"
                more = how.also(bound=told, dims=self.image.dims)
                name = f"{name}_bits_per_dim"
                result.append(Figure(name, bits, "bits per dim", direction, self.images, more))
        return result

    def _per_image(self, name: str, total: float, direction: Direction, how: Protocol) -> Figure:
        return Figure(
            f"{name}_nats", total / self.images, "nats per image", direction, self.images, how
        )
