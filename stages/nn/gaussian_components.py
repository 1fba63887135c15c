"""Gaussians with weights, in any number of groups, and the statistics that fit them.

    log w_k N(x; m_k, F_k F_k^T) = log w_k - 1/2 |F_k^-1 (x - m_k)|^2 - log det F_k - D/2 log 2 pi

F_k is a lower triangle (full covariance) or a vector (diagonal). One pass of expectation
maximisation (Dempster et al. 1977) needs of the data only, with r_ik = p(k given x_i),

    n_k = sum_i r_ik,    s_k = sum_i r_ik x_i,    S_k = sum_i r_ik x_i x_i^T

    w_k = n_k / n,    m_k = s_k / n_k,    F_k F_k^T = S_k / n_k - m_k m_k^T + floor I

(Bishop 2006, Eqs. 9.22 to 9.27): sums, which may be taken piece by piece over any amount of data.
"""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from stages.core.errors import ParamsError

__all__ = ["GaussianComponents", "Statistics"]

Vectors = Float[Tensor, "vectors dim"]
PerComponent = Float[Tensor, "vectors components"]

_FEWEST = 1e-3
"""A component that answers for less than this of one vector keeps its place and form."""


class Statistics:
    """n, s and S of every component of one group, in float64 where the device has it."""

    def __init__(self, components: int, dim: int, *, full: bool, device: torch.device) -> None:
        kind = torch.float32 if device.type == "mps" else torch.float64
        second = (components, dim, dim) if full else (components, dim)
        self.full = full
        self.counts = torch.zeros(components, dtype=kind, device=device)
        self.sums = torch.zeros(components, dim, dtype=kind, device=device)
        self.products = torch.zeros(second, dtype=kind, device=device)

    def add(self, vectors: Vectors, shares: PerComponent) -> None:
        """Count some vectors.

        Args:
            vectors: The data.
            shares: r, how far each component answers for each vector.
        """
        vectors, shares = vectors.to(self.sums), shares.to(self.sums)
        self.counts += shares.sum(dim=0)
        self.sums += shares.T @ vectors
        if self.full:
            for component, share in enumerate(shares.T):
                self.products[component] += (vectors * share[:, None]).T @ vectors
        else:
            self.products += shares.T @ vectors.square()


class GaussianComponents(nn.Module):
    """Groups of Gaussians; buffers, since no gradient trains them.

    Args:
        groups: Mixtures, each of weight 1.
        components: Gaussians in each.
        dim: Numbers of a vector.
        full: Whether covariances are full, or diagonal.
    """

    log_weights: Float[Tensor, "groups components"]
    means: Float[Tensor, "groups components dim"]
    factors: Tensor

    def __init__(self, groups: int, components: int, dim: int, *, full: bool) -> None:
        super().__init__()
        self.full, self.dim = full, dim
        form = torch.eye(dim) if full else torch.ones(dim)
        self.register_buffer("log_weights", torch.full((groups, components), -math.log(components)))
        self.register_buffer("means", torch.zeros(groups, components, dim))
        self.register_buffer("factors", form.repeat(groups, components, *[1] * form.ndim))

    def joint(self, vectors: Vectors, group: int) -> PerComponent:
        """log w_k + log N(x; k) of one group, in nats."""
        means, factors = self.means[group], self.factors[group]
        away = vectors.to(means) - means.unsqueeze(1)
        if self.full:
            white = torch.linalg.solve_triangular(factors, away.mT, upper=False).mT
            spread = factors.diagonal(dim1=-2, dim2=-1)
        else:
            white, spread = away / factors.unsqueeze(1), factors
        log_normaliser = spread.log().sum(dim=-1) + 0.5 * self.dim * math.log(2 * math.pi)
        densities = -0.5 * white.square().sum(dim=-1) - log_normaliser.unsqueeze(1)
        return self.log_weights[group] + densities.T

    def from_normal(
        self, chosen: Int[Tensor, " vectors"], noise: Vectors, group: Int[Tensor, " vectors"]
    ) -> Vectors:
        """m + F noise for each vector's component of its group."""
        means, factors = self.means[group, chosen], self.factors[group, chosen]
        if self.full:
            return means + (factors @ noise.unsqueeze(-1)).squeeze(-1)
        return means + factors * noise

    def statistics(self) -> Statistics:
        """Empty ones, of one group."""
        components = self.log_weights.shape[1]
        return Statistics(components, self.dim, full=self.full, device=self.means.device)

    def update(self, group: int, seen: Statistics, floor: float) -> None:
        """The parameters of a group that its statistics ask for.

        Args:
            group: Which.
            seen: Of all the data.
            floor: Added to every variance.

        Raises:
            ParamsError: If a full covariance is singular but for rounding, and the floor too low to
                mend that.
        """
        told = seen.counts > _FEWEST
        counts = seen.counts.clamp_min(_FEWEST)
        means = seen.sums / counts[:, None]
        if self.full:
            covariance = seen.products / counts[:, None, None] - means.unsqueeze(2) * means[:, None]
            covariance.diagonal(dim1=-2, dim2=-1).add_(floor)
            # Of a component that answers for nothing only the form is wanted, not the numbers.
            covariance[~told] = torch.eye(self.dim).to(covariance)
            factors, failed = torch.linalg.cholesky_ex(covariance)
            if failed.any():
                raise ParamsError(
                    "prior.covariance_floor: must stand above rounding where a component has fewer "
                    f"latents than these have numbers; got {floor:g}, at which "
                    f"{failed.count_nonzero()} of {len(failed)} covariances are singular; raise it "
                    "(0.001 is usual), give fewer components, or choose covariance: diagonal"
                )
        else:
            variance = seen.products / counts[:, None] - means.square()
            factors = (variance.clamp_min(0) + floor).sqrt()
        self.log_weights[group] = (counts / counts.sum()).log().to(self.log_weights)
        self.means[group, told] = means[told].to(self.means)
        self.factors[group, told] = factors[told].to(self.factors)
