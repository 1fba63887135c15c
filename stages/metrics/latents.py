"""Whether continuous latents carry anything: KL per dimension, active units, scale.

A latent dimension is one number of the latent grid. Over the split, for each of them,

    KL = mean_x KL(q(z|x) || p_0)          nats, closed form; p_0 = N(0, 1) of Gaussians (Kingma &
                                           Welling 2013, App. B)
    active if Var_x(E_q[z]) > 0.01 Var p_0 Burda et al. 2016 (arXiv:1509.00519), Section 5.2
    collapsed if KL < 0.1 nats

A collapsed dimension says nothing about the image and the decoder has learned to do without it.
All in the autoencoder's own units; the stored latents are `scale` times these.

Differs: the threshold of activity is a share of the variance of p_0, the prior the latents were
charged against, which is 1 only of Gaussians; of points (an autoencoder without posterior) only
activity and spread are figures.
"""

import torch
from jaxtyping import Float
from torch import Tensor

from stages.bottlenecks.base import LatentSpec
from stages.metrics.base import Figure, Metric, Observation, Protocol
from stages.nn.posteriors import family_of

__all__ = ["ACTIVE_ABOVE", "COLLAPSED_BELOW", "LatentActivity"]

ACTIVE_ABOVE = 0.01
COLLAPSED_BELOW = 0.1


class LatentActivity(Metric):
    """KL per dimension, active and collapsed units, spread of continuous latents."""

    title = "Latents"

    def __init__(self, spec: LatentSpec) -> None:
        self.spec = spec
        self.family = family_of(spec.posterior, spec.reference)
        self.images = 0
        shape = (spec.channels, spec.grid_height, spec.grid_width)
        self._kl = torch.zeros(shape, dtype=torch.float64)
        self._centre = torch.zeros(shape, dtype=torch.float64)
        self._scatter = torch.zeros(shape, dtype=torch.float64)
        self._draws = 0.0

    def update(self, seen: Observation) -> None:
        """Take in one batch."""
        assert seen.latents is not None, "latent activity is for continuous latents"
        means = seen.latents if seen.posterior is None else seen.posterior.mean
        self._merge(means.double().cpu())
        if seen.posterior is not None:
            self._kl += seen.posterior.kl_per_number().double().sum(dim=0).cpu()
        self._draws += seen.latents.double().square().sum().item()

    def _merge(self, means: Float[Tensor, "batch latent_channels grid_height grid_width"]) -> None:
        """Pool mean and scatter of two sets (Chan et al. 1979): no cancellation of large sums."""
        count, total = len(means), self.images + len(means)
        centre = means.mean(dim=0)
        shift = centre - self._centre
        self._scatter += (means - centre).square().sum(dim=0)
        self._scatter += shift.square() * (self.images * count / total)
        self._centre += shift * (count / total)
        self.images = total

    @property
    def kl_per_dimension(self) -> Float[Tensor, "latent_channels grid_height grid_width"]:
        """Mean KL of each latent number in nats."""
        return self._kl / self.images

    @property
    def variance_of_means(self) -> Float[Tensor, "latent_channels grid_height grid_width"]:
        """Var_x(E_q[z]) of each latent number."""
        return self._scatter / self.images

    def figures(self, protocol: Protocol) -> list[Figure]:
        """Activity and spread; KL too where there is a posterior."""
        n, numbers = self.images, self.spec.numbers
        prior_variance = self.family.standard(self.variance_of_means).variance.item()
        threshold = ACTIVE_ABOVE * prior_variance
        active = int((self.variance_of_means > threshold).sum())
        how = protocol.also(units="the autoencoder's own", found={"latent_dimensions": numbers})
        active_rule = how.also(active=f"Var_x(E_q[z]) > {threshold:g}")
        spread = (self._draws / (n * numbers)) ** 0.5
        result = [
            Figure("active_units", active, "latent dimensions", "higher", n, active_rule),
            Figure("active_units_share", active / numbers, "share", "higher", n, active_rule),
            Figure("latent_rms", spread, "latent units", "none", n, how),
            Figure("latent_scale", self.spec.scale, "stored per own unit", "none", n, how),
        ]
        return result if self.spec.deterministic else [*self._kl_figures(how), *result]

    def _kl_figures(self, how: Protocol) -> list[Figure]:
        n, kl = self.images, self.kl_per_dimension
        reference = how.also(against=self.family.prior_name)
        collapsed = (kl < COLLAPSED_BELOW).double().mean().item()
        return [
            Figure("kl", kl.sum().item(), "nats per image", "none", n, reference),
            Figure(
                "kl_per_dimension",
                kl.mean().item(),
                "nats per latent dimension",
                "none",
                n,
                reference,
            ),
            Figure(
                "collapsed_units_share",
                collapsed,
                "share",
                "lower",
                n,
                reference.also(collapsed=f"KL < {COLLAPSED_BELOW} nats"),
            ),
        ]
