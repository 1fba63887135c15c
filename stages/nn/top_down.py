"""Up through a ladder of grids, and down again drawing latents: the networks of a deep VAE.

Grids stand coarse to fine, each with some groups of latents z_1, ..., z_L. Evidence is read from
the image on the way up; on the way down a state passes through the groups,

    p(z_l given z_<l) = N(mu_p, diag sigma_p^2)         from the state
    q(z_l given z_<l, x) = N(mu_q, diag sigma_q^2)      from the state and the evidence
    state <- state + residual(state) + projection(z_l)

and is enlarged from grid to grid (Sonderby et al. 2016; Vahdat & Kautz 2020, arXiv:2007.03898;
Child 2021, arXiv:2011.10650). `residual` posteriors are told by their distance from the prior,

    mu_q = mu_p + d mu,    log sigma_q = log sigma_p + d log sigma        (Vahdat & Kautz, Eq. 2)

so that q follows when p moves; `absolute` ones are told by themselves.

What a group hands on is its latents in whitened coordinates e = (z - mu_p) / sigma_p, in which its
prior is N(0, I); neither KL nor density ratios change.

Differs from Child: cells are merged and spread between grids by linear maps that know their places,
not by means and copies, so that a short ladder can say in one cell where things are. Prior and
posterior share one convolution of the state, and the evidence of all groups of a grid is one
convolution: few and wide operations. A group holds one 3x3 convolution, not two in a bottleneck;
the next group sees further. Residuals start at zero and the projections of L groups share a
variance of 1, so that activations keep their scale at any depth without normalisation.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from stages.nn.convolution import AFTER_SILU, LINEAR, convolution, start_weights
from stages.nn.distributions import DiagonalGaussian, LatentNumbers
from stages.nn.residual import residual_blocks

__all__ = [
    "BottomUp",
    "Choose",
    "Descent",
    "Grid",
    "PosteriorForm",
    "TopDown",
    "merging",
    "spreading",
]

PosteriorForm = Literal["residual", "absolute"]
Choose = Callable[[DiagonalGaussian], LatentNumbers]
"""Latents of a group, given their posterior: a draw, or the mean."""

Maps = Float[Tensor, "batch maps grid_height grid_width"]
State = Float[Tensor, "batch width grid_height grid_width"]
Hidden = Float[Tensor, "batch hidden grid_height grid_width"]

# Standard deviations stay within e^-5 and e^5, smoothly; NVAE's value.
_LOG_STD_BOUND = 5.0
# Posteriors start this far from their priors, in units of a layer that keeps the scale: near, so
# that the first KL is small, but not at them, so that the first draws already tell of the image.
_POSTERIOR_GAIN = 0.3


class Grid(NamedTuple):
    """One rung of the ladder."""

    rows: int
    columns: int
    width: int
    """Maps of the state, and of the evidence before it is read; half of them within a group."""
    groups: int
    """Groups of latents."""

    @property
    def hidden(self) -> int:
        """Maps within a group."""
        return self.width // 2

    @property
    def kernel(self) -> int:
        """Side of the kernels: of a 3x3 kernel, one cell alone would see one weight."""
        return 1 if max(self.rows, self.columns) == 1 else 3


class Descent(NamedTuple):
    """The result of going down with an image in sight."""

    features: Maps
    """What the decoder gets."""
    posteriors: list[DiagonalGaussian]
    """Of every group, coarse to fine, in whitened coordinates, given the latents before."""
    latents: list[LatentNumbers]
    """What was chosen, in whitened coordinates."""


def merging(before: Grid, after: Grid) -> nn.Module:
    """From a grid to a coarser one, or to one of the same size.

    Where cells divide, each coarse cell is a linear map of all cells in it, which knows their
    places: a mean would hide from the coarsest latents where things are. Elsewhere cells are means.
    """
    factor = _factor(after, before)
    if factor is None:
        project = convolution(before.width, after.width, 1, gain=LINEAR)
        return nn.Sequential(nn.AdaptiveAvgPool2d((after.rows, after.columns)), project)
    layer = nn.Conv2d(before.width, after.width, factor, stride=factor)
    return _started(layer, before.width * math.prod(factor))


def spreading(before: Grid, after: Grid) -> nn.Module:
    """From a grid to a finer one: each fine cell is a linear map, of its place, of its coarse cell.

    Where cells do not divide, it is that of the nearest cell, the same in all places.
    """
    factor = _factor(before, after)
    if factor is None:
        project = convolution(before.width, after.width, 1, gain=LINEAR)
        return nn.Sequential(project, nn.Upsample((after.rows, after.columns), mode="nearest"))
    layer = nn.ConvTranspose2d(before.width, after.width, factor, stride=factor)
    return _started(layer, before.width)


def _factor(coarse: Grid, fine: Grid) -> tuple[int, int] | None:
    """Fine rows and columns per coarse cell, if that is a whole number of each."""
    if fine.rows % coarse.rows or fine.columns % coarse.columns:
        return None
    return fine.rows // coarse.rows, fine.columns // coarse.columns


def _started(layer: nn.Conv2d | nn.ConvTranspose2d, fan_in: int) -> nn.Module:
    start_weights(layer.weight, fan_in, LINEAR)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer


class BottomUp(nn.Module):
    """Features on the finest grid -> evidence for every group.

    Args:
        in_width: Maps of the features.
        grids: Coarse to fine.
        blocks: Residual blocks on each grid.
    """

    def __init__(self, in_width: int, grids: Sequence[Grid], blocks: int) -> None:
        super().__init__()
        self.grids = tuple(grids)
        paths, readings = [], []
        below = self.grids[-1]._replace(width=in_width)
        for grid in reversed(self.grids):
            paths.append(nn.Sequential(merging(below, grid), *residual_blocks(grid.width, blocks)))
            evidence = grid.groups * grid.hidden
            read = convolution(grid.width, evidence, grid.kernel, gain=AFTER_SILU)
            readings.append(nn.Sequential(nn.SiLU(), read))
            below = grid
        self.paths, self.readings = nn.ModuleList(paths), nn.ModuleList(readings)

    def forward(self, features: Maps) -> list[Tensor]:
        """Evidence of each group, (batch, hidden, rows, columns) of its grid, coarse to fine."""
        found: list[Tensor] = []
        maps = features
        for grid, path, read in zip(reversed(self.grids), self.paths, self.readings, strict=True):
            maps = path(maps)
            found = [*read(maps).chunk(grid.groups, dim=1), *found]
        return found


class TopDown(nn.Module):
    """The prior over all groups, their posteriors, and the way from latents to features.

    Args:
        grids: Coarse to fine.
        channels: Latents per cell of each group.
        posterior: How posteriors are told.
        out_width: Maps of the features it ends with.
    """

    def __init__(
        self, grids: Sequence[Grid], channels: int, posterior: PosteriorForm, out_width: int
    ) -> None:
        super().__init__()
        depth = sum(grid.groups for grid in grids)
        self.places = nn.ParameterList(
            nn.Parameter(torch.zeros(1, grid.width, grid.rows, grid.columns)) for grid in grids
        )
        # The learned state that everything starts from; zero would pass no gradient to weights.
        nn.init.normal_(self.places[0])
        self.enlargements = nn.ModuleList(
            spreading(before, grid) for before, grid in pairwise(grids)
        )
        self.groups = nn.ModuleList(
            nn.ModuleList(_Group(grid, channels, posterior, depth) for _ in range(grid.groups))
            for grid in grids
        )
        self.project_out = convolution(grids[-1].width, out_width, 1, gain=LINEAR)

    def infer(self, evidence: Sequence[Tensor], choose: Choose) -> Descent:
        """Go down with an image in sight.

        Args:
            evidence: What `BottomUp` gave.
            choose: Draws each group's latents from their posterior, or takes the mean; those that
                follow are conditioned on what it gives.
        """
        remaining = iter(evidence)
        posteriors, latents = [], []
        state = None
        for place, enlarge, groups in self._rungs():
            state = _enter(place, enlarge, state, len(evidence[0]))
            for group in groups:
                state, posterior, chosen = group.infer(state, next(remaining), choose)
                posteriors.append(posterior)
                latents.append(chosen)
        return Descent(self.project_out(state), posteriors, latents)

    def generate(self, latents: Sequence[Tensor]) -> Maps:
        """Go down from given latents.

        Args:
            latents: Of each group, in whitened coordinates: draws of N(0, I) make this ancestral
                sampling, z_l = mu_p(z_<l) + sigma_p(z_<l) e_l.
        """
        remaining = iter(latents)
        state = None
        for place, enlarge, groups in self._rungs():
            state = _enter(place, enlarge, state, len(latents[0]))
            for group in groups:
                state = group.generate(state, next(remaining))
        return self.project_out(state)

    def _rungs(self) -> Iterator[tuple[Tensor, nn.Module | None, nn.ModuleList]]:
        return zip(self.places, [None, *self.enlargements], self.groups, strict=True)


def _enter(place: Tensor, enlarge: nn.Module | None, state: Tensor | None, batch: int) -> Tensor:
    """The state on its next grid: the one before, enlarged, and what is learned of each place."""
    if enlarge is None:
        return place.expand(batch, -1, -1, -1)
    return enlarge(state) + place


class _Group(nn.Module):
    """One group of latents, and the residual step of the state it belongs to."""

    def __init__(self, grid: Grid, channels: int, form: PosteriorForm, depth: int) -> None:
        super().__init__()
        self.form: PosteriorForm = form
        hidden = grid.hidden
        self.look = convolution(grid.width, 2 * hidden, grid.kernel, gain=AFTER_SILU)
        # The prior is N(0, I) and the residual nothing before training.
        self.prior = convolution(hidden, 2 * channels + grid.width, 1, gain=0.0)
        self.posterior = convolution(hidden, 2 * channels, 1, gain=_POSTERIOR_GAIN)
        self.project = convolution(channels, grid.width, 1, gain=1 / math.sqrt(depth))

    def infer(
        self, state: State, evidence: Hidden, choose: Choose
    ) -> tuple[State, DiagonalGaussian, LatentNumbers]:
        for_prior, for_posterior = self._look(state)
        mean, log_std, residual = self._read_prior(for_prior)
        told = self.posterior(F.silu(for_posterior + evidence)).float()
        posterior = self._whitened(told, mean, log_std)
        latents = choose(posterior)
        return self._step(state, residual, mean, log_std, latents), posterior, latents

    def generate(self, state: State, latents: LatentNumbers) -> State:
        mean, log_std, residual = self._read_prior(self._look(state)[0])
        return self._step(state, residual, mean, log_std, latents)

    def _look(self, state: State) -> tuple[Tensor, Tensor]:
        for_prior, for_posterior = self.look(F.silu(state)).chunk(2, dim=1)
        return for_prior, for_posterior

    def _read_prior(self, hidden: Hidden) -> tuple[Tensor, Tensor, Tensor]:
        channels = self.project.in_channels
        told, residual = self.prior(F.silu(hidden)).tensor_split([2 * channels], dim=1)
        mean, log_std = told.float().chunk(2, dim=1)
        return mean, _bounded(log_std), residual

    def _whitened(self, told: Tensor, mean: Tensor, log_std: Tensor) -> DiagonalGaussian:
        """The posterior of e = (z - mean) / std."""
        first, second = told.chunk(2, dim=1)
        if self.form == "residual":
            return DiagonalGaussian(first * torch.exp(-log_std), 2 * _bounded(second))
        return DiagonalGaussian(
            (first - mean) * torch.exp(-log_std), 2 * (_bounded(second) - log_std)
        )

    def _step(
        self, state: Tensor, residual: Tensor, mean: Tensor, log_std: Tensor, latents: Tensor
    ) -> Tensor:
        return state + residual + self.project(mean + torch.exp(log_std) * latents)


def _bounded(log_std: Tensor) -> Tensor:
    return _LOG_STD_BOUND * torch.tanh(log_std / _LOG_STD_BOUND)
