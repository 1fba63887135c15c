"""How far off an estimator is on average, and how noisy, from many draws of its gradient.

With M draws of mean m and covariance S, against the exact gradient g,

    bias^2     = ||m - g||^2 - tr S / M         unbiased: noise alone makes ||m - g||^2 positive
    variance   = tr S                                                     of one draw, summed
    Var(bias^2) = 2 tr S^2 / M^2 + 4 (m - g)' S (m - g) / M      for m normal, as M is large

Without bias only the first term of the last line is there, so bias^2 above three times its root is
called a bias; below, the estimator's bias is not distinguishable from 0 at this number of draws.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from benchmarks.gradient_estimators.estimators import Estimator
from benchmarks.gradient_estimators.problem import Problem

__all__ = ["Moments", "measure"]

_CHUNK = 8192
"""Gradients at once: they stay near the processor."""
_SURE = 3.0


@dataclass(frozen=True)
class Moments:
    """What M draws of a gradient say. Units: nats, and nats squared."""

    draws: int
    exact_norm: float
    """||g||."""
    bias_square: float
    """Unbiased estimate of ||E[m] - g||^2; below zero by chance where there is no bias."""
    bias_square_error: float
    """Its standard error."""
    null_error: float
    """Its standard error if there were no bias."""
    variance: float
    """tr S, of one draw."""

    @property
    def has_bias(self) -> bool:
        """Whether the bias is distinguishable from 0."""
        return self.bias_square > _SURE * self.null_error

    @property
    def bias(self) -> float:
        """||bias||; what noise left of it where it is not distinguishable."""
        return math.sqrt(max(self.bias_square, 0.0))

    @property
    def bias_error(self) -> float:
        """Standard error of `bias`, where there is one."""
        return self.bias_square_error / (2 * self.bias) if self.has_bias else math.nan

    @property
    def bias_limit(self) -> float:
        """Below this the bias lies: the estimate and two standard errors."""
        return math.sqrt(max(self.bias_square, 0.0) + 2 * self.bias_square_error)


def measure(
    estimator: Estimator, problem: Problem, draws: int, generator: torch.Generator
) -> Moments:
    """Draw `draws` gradients and hold their mean against the exact one."""
    exact = problem.exact_gradient().flatten()
    total = torch.zeros_like(exact)
    products = torch.zeros(len(exact), len(exact), dtype=exact.dtype)
    for start in range(0, draws, _CHUNK):
        count = min(_CHUNK, draws - start)
        # Around the exact gradient, so that squares of large numbers do not cancel.
        found = estimator.gradients(problem, count, generator).flatten(1).double() - exact
        total += found.sum(dim=0)
        products += found.T @ found
    return _moments(exact, total / draws, products / draws, draws)


def _moments(exact: Tensor, offset: Tensor, second: Tensor, draws: int) -> Moments:
    covariance = (second - offset.outer(offset)) * draws / (draws - 1)
    variance = covariance.trace()
    null = 2 * covariance.square().sum() / draws**2
    beside = 4 * (offset @ covariance @ offset) / draws
    return Moments(
        draws=draws,
        exact_norm=exact.norm().item(),
        bias_square=(offset.square().sum() - variance / draws).item(),
        bias_square_error=(null + beside).sqrt().item(),
        null_error=null.sqrt().item(),
        variance=variance.item(),
    )
