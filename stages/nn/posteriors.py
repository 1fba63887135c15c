"""Posteriors beside the Gaussian: families of one latent number that two moments settle.

Whatever its family, a posterior is told by mean m and variance v of every latent number; the family
turns them back into a distribution, and has a standard prior that its KL is taken to:

    gaussian   N(m, v)                                                  N(0, 1)
    laplace    scale b = sqrt(v / 2)                                    Laplace(0, 1)
    gamma      concentration a = m^2 / v, rate a / m; numbers > 0       Gamma(a_0, rate_0)
    beta       a + b = m (1 - m) / v - 1, a = m (a + b); in (0, 1)      Beta(a_0, b_0)

Draws carry gradients to the moments (path-wise), all noise from the generator given:

    laplace    z = m - b sign(u) log(1 - |u|),  u ~ Uniform(-1, 1)
    gamma      z = g / rate, log g = log g' + log(u) / a, g' ~ Gamma(a + 1, 1), u ~ Uniform(0, 1)
    beta       z = g_1 / (g_1 + g_0), g_1 and g_0 two such draws of concentrations a and b

g' comes from torch's rejection sampler, whose derivative is the implicit one (Figurnov et al. 2018,
arXiv:1805.08498). Raising its concentration by one and paying with a uniform number (Naesseth et
al. 2017, arXiv:1610.05683, section 4) leaves tiny draws in logarithms, where float32 holds them.

    KL(q || p) = E_q[log q - log p]

in the closed form of torch.distributions, or as the mean over draws of q where that has none.

Differs: concentrations keep to a range (see `GAMMA_CONCENTRATIONS`), into which rounded moments
are brought back, so that float16 on disk never gives parameters that are none.
"""

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor
from torch.distributions import Beta, Distribution, Gamma, Laplace, Normal, kl_divergence

from stages.core.shapes import Nats
from stages.nn.distributions import LATENT_LOG_VARIANCE_RANGE, LatentNumbers, Posterior
from stages.nn.inverse_cdf import (
    beta_from_uniform,
    gamma_from_uniform,
    laplace_from_uniform,
    normal_from_uniform,
)

__all__ = [
    "BETA_CONCENTRATIONS",
    "GAMMA_CONCENTRATIONS",
    "FactorizedPosterior",
    "Family",
    "bounded",
    "family_of",
]

Numbers = Float[Tensor, "*shape"]

# Below 1/4, draws u^(1/a) of float32 uniforms leave float32's range. Above 1000 (a draw within 3 %
# of the mean), lgamma(a) reaches 6000 and a KL in float32 has hardly three decimals left.
GAMMA_CONCENTRATIONS = (0.25, 1000.0)
# Below 1/2 more than one draw in a thousand lies closer to 1 than float32 tells apart.
BETA_CONCENTRATIONS = (0.5, 1000.0)

# Smallest step of float32 uniforms, halved: its logarithm is finite.
_SMALLEST_UNIFORM = 2.0**-25
_ROUNDING = 4 * torch.finfo(torch.float32).eps


class Family(ABC):
    """Distributions of one number, settled by mean and variance, and their standard prior.

    Attributes:
        support: Between which numbers densities are positive.
        prior_name: What reports call the standard prior.
    """

    support: ClassVar[tuple[float, float]]
    prior_name: str

    @abstractmethod
    def standard(self, like: Tensor) -> Distribution:
        """The standard prior of one number, on the device and in the precision of `like`."""

    @abstractmethod
    def of_moments(self, mean: Numbers, log_variance: Numbers) -> Distribution:
        """The members with these moments, or the nearest in the range of the family."""

    @abstractmethod
    def draw(self, distribution: Any, generator: torch.Generator | None) -> Tensor:
        """One number of each member, with a gradient to their parameters."""

    @abstractmethod
    def quantiles(self, distribution: Any, uniforms: Numbers) -> Numbers:
        """Numbers below which one member has these shares; no gradient."""

    def log_prob(self, distribution: Distribution, numbers: Numbers) -> Numbers:
        """Log-density of each number in nats; -inf outside the support."""
        low, high = self.support
        limits = torch.finfo(numbers.dtype)
        # Scaling and unscaling may round a number onto the edge, where densities may be infinite.
        inside = (numbers >= low) & (numbers <= high * (1 + _ROUNDING))
        density = distribution.log_prob(numbers.clamp(low + limits.tiny, high - limits.eps))
        return torch.where(inside, density, -torch.inf)

    def standard_from_uniform(self, uniforms: Numbers, temperature: float) -> Numbers:
        """Numbers of the standard prior, its standard deviation multiplied by the temperature."""
        standard = self.standard(torch.zeros((), dtype=torch.float64))
        log_variance = standard.variance.log() + 2 * math.log(temperature)
        return self.quantiles(self.of_moments(standard.mean, log_variance), uniforms)

    def standardised(self, numbers: Numbers) -> Numbers:
        """Numbers that have mean 0 and variance 1 under the standard prior."""
        standard = self.standard(numbers)
        return (numbers - standard.mean) / standard.stddev


class GaussianFamily(Family):
    """N(m, v) against N(0, 1)."""

    support = (-math.inf, math.inf)
    prior_name = "N(0, I)"

    def standard(self, like: Tensor) -> Normal:
        """N(0, 1)."""
        return Normal(like.new_zeros(()), like.new_ones(()), validate_args=False)

    def of_moments(self, mean: Numbers, log_variance: Numbers) -> Normal:
        """As they are."""
        return Normal(mean, torch.exp(0.5 * log_variance), validate_args=False)

    def draw(self, distribution: Normal, generator: torch.Generator | None) -> Tensor:
        """m + sqrt(v) eps."""
        mean = distribution.loc
        noise = torch.randn(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + distribution.scale * noise

    def quantiles(self, distribution: Normal, uniforms: Numbers) -> Numbers:
        """Of the standard normal, moved."""
        return distribution.loc.item() + distribution.scale.item() * normal_from_uniform(uniforms)


class LaplaceFamily(Family):
    """Laplace(m, b) against Laplace(0, 1)."""

    support = (-math.inf, math.inf)
    prior_name = "Laplace(0, 1)"

    def standard(self, like: Tensor) -> Laplace:
        """Laplace(0, 1), of variance 2."""
        return Laplace(like.new_zeros(()), like.new_ones(()), validate_args=False)

    def of_moments(self, mean: Numbers, log_variance: Numbers) -> Laplace:
        """b = sqrt(v / 2)."""
        return Laplace(mean, torch.exp(0.5 * (log_variance - math.log(2))), validate_args=False)

    def draw(self, distribution: Laplace, generator: torch.Generator | None) -> Tensor:
        """m - b sign(u) log(1 - |u|)."""
        return distribution.loc + distribution.scale * laplace_from_uniform(
            _uniforms(distribution.loc, generator)
        )

    def quantiles(self, distribution: Laplace, uniforms: Numbers) -> Numbers:
        """In closed form."""
        return distribution.loc.item() + distribution.scale.item() * laplace_from_uniform(uniforms)


class GammaFamily(Family):
    """Gamma(a, rate) against Gamma(a_0, rate_0)."""

    support = (0.0, math.inf)

    def __init__(self, concentration: float, rate: float) -> None:
        """Name the standard prior by its parameters."""
        self.concentration, self.rate = concentration, rate
        self.prior_name = f"Gamma({concentration:g}, rate {rate:g})"

    def standard(self, like: Tensor) -> Gamma:
        """Gamma(a_0, rate_0)."""
        concentration, rate = like.new_tensor([self.concentration, self.rate])
        return Gamma(concentration, rate, validate_args=False)

    def of_moments(self, mean: Numbers, log_variance: Numbers) -> Gamma:
        """a = m^2 / v, rate = a / m."""
        # Rounded to float16, a small mean may be 0.
        mean = mean.clamp_min(1e-6 * self.concentration / self.rate)
        low, high = map(math.log, GAMMA_CONCENTRATIONS)
        concentration = (2 * mean.log() - log_variance).clamp(low, high).exp()
        return Gamma(concentration, concentration / mean, validate_args=False)

    def draw(self, distribution: Gamma, generator: torch.Generator | None) -> Tensor:
        """Positive numbers, from their logarithms."""
        log_draw = _log_gamma_draw(distribution.concentration, generator)
        return torch.exp(log_draw - distribution.rate.log())

    def quantiles(self, distribution: Gamma, uniforms: Numbers) -> Numbers:
        """By scipy's inverse of the incomplete gamma function."""
        units = gamma_from_uniform(uniforms, distribution.concentration.item())
        return units / distribution.rate.item()


class BetaFamily(Family):
    """Beta(a, b) against Beta(a_0, b_0); a_0 = b_0 = 1 is uniform on (0, 1)."""

    support = (0.0, 1.0)

    def __init__(self, towards_one: float, towards_zero: float) -> None:
        """Name the standard prior by its concentrations a_0 and b_0."""
        self.concentrations = (towards_one, towards_zero)
        self.prior_name = f"Beta({towards_one:g}, {towards_zero:g})"

    def standard(self, like: Tensor) -> Beta:
        """Beta(a_0, b_0)."""
        return Beta(*like.new_tensor(self.concentrations), validate_args=False)

    def of_moments(self, mean: Numbers, log_variance: Numbers) -> Beta:
        """a + b = m (1 - m) / v - 1, a = m (a + b)."""
        low, high = BETA_CONCENTRATIONS
        edge = low / (low + high)
        mean = mean.clamp(edge, 1 - edge)
        precision = torch.exp(-log_variance.clamp(*LATENT_LOG_VARIANCE_RANGE))
        total = (mean * (1 - mean) * precision - 1).clamp(2 * low, 2 * high)
        towards_one = (mean * total).clamp(low, high)
        towards_zero = ((1 - mean) * total).clamp(low, high)
        return Beta(towards_one, towards_zero, validate_args=False)

    def draw(self, distribution: Beta, generator: torch.Generator | None) -> Tensor:
        """The share of one gamma draw in the sum of two."""
        log_one = _log_gamma_draw(distribution.concentration1, generator)
        log_zero = _log_gamma_draw(distribution.concentration0, generator)
        limits = torch.finfo(log_one.dtype)
        return torch.sigmoid(log_one - log_zero).clamp(limits.tiny, 1 - limits.eps)

    def quantiles(self, distribution: Beta, uniforms: Numbers) -> Numbers:
        """By scipy's inverse of the incomplete beta function."""
        concentrations = distribution.concentration1.item(), distribution.concentration0.item()
        return beta_from_uniform(uniforms, *concentrations)


_FAMILIES: dict[str, type[Family]] = {
    "gaussian": GaussianFamily,
    "laplace": LaplaceFamily,
    "gamma": GammaFamily,
    "beta": BetaFamily,
}


def family_of(posterior: str, reference: tuple[float, ...]) -> Family:
    """The family that a `LatentSpec` names by its `posterior` and `reference`."""
    return _FAMILIES[posterior](*reference)


@dataclass(frozen=True)
class FactorizedPosterior(Posterior):
    """q(z given x), independent numbers of one family."""

    family: Family

    @cached_property
    def distribution(self) -> Distribution:
        """Of every latent number."""
        return self.family.of_moments(self.mean, self.log_variance)

    def rsample(self, generator: torch.Generator | None = None) -> LatentNumbers:
        """A draw through which gradients reach the moments."""
        return self.family.draw(self.distribution, generator)

    def log_prob(self, latents: LatentNumbers) -> Nats:
        """log q(latents) in nats per image."""
        return self.family.log_prob(self.distribution, latents).sum(dim=(1, 2, 3))

    def standard_log_prob(self, latents: LatentNumbers) -> Nats:
        """Log-density of the latents under the standard prior, in nats per image."""
        return self.family.log_prob(self.family.standard(latents), latents).sum(dim=(1, 2, 3))

    def kl_per_number(
        self, draws: int = 0, generator: torch.Generator | None = None
    ) -> LatentNumbers:
        """KL from q to the standard prior, of every latent number, in nats.

        Args:
            draws: Of the Monte Carlo estimate; 0: the closed form.
            generator: Where draws come from.

        Raises:
            NotImplementedError: If torch.distributions has no closed form of this pair.
        """
        standard = self.family.standard(self.mean)
        if draws == 0:
            return kl_divergence(self.distribution, standard)
        ratios = torch.zeros_like(self.mean)
        for _ in range(draws):
            latents = self.rsample(generator)
            log_posterior = self.family.log_prob(self.distribution, latents)
            ratios = ratios + log_posterior - self.family.log_prob(standard, latents)
        return ratios / draws


def bounded(raw: Numbers, low: float, high: float, start: float) -> Numbers:
    """All numbers smoothly into (low, high): 0 to `start`, where the slope is 1.

    A clamp would cut the gradient of every unit that starts beyond a bound.
    """
    share = (start - low) / (high - low)
    steepness = 1 / ((high - low) * share * (1 - share))
    return low + (high - low) * torch.sigmoid(math.log(share / (1 - share)) + steepness * raw)


def _uniforms(like: Tensor, generator: torch.Generator | None) -> Tensor:
    numbers = torch.rand(like.shape, generator=generator, device=like.device, dtype=like.dtype)
    return numbers.clamp_min(_SMALLEST_UNIFORM)


def _log_gamma_draw(concentration: Numbers, generator: torch.Generator | None) -> Numbers:
    """log of a draw of Gamma(concentration, 1)."""
    raised = torch._standard_gamma(concentration + 1, generator=generator)
    return raised.log() + _uniforms(concentration, generator).log() / concentration
