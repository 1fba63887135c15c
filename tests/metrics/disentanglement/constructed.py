"""Representations whose scores are known: factors of a full factorial, latents made from them."""

import numpy as np

from stages.metrics.disentanglement.representation import Representation, represent

VALUES = (4, 5, 3)
LATENT_DIMS = 5
HOMES = (1, 0, 3)
"""The latent each factor lives in; latents 2 and 4 are empty."""


def factorial(repeats: int = 20) -> np.ndarray:
    """Every combination equally often, in shuffled order: factors are exactly independent."""
    cells = np.stack(np.unravel_index(np.arange(np.prod(VALUES)), VALUES), axis=1)
    rows = np.random.default_rng(7).permutation(np.repeat(np.arange(len(cells)), repeats))
    return cells[rows]


def perfect_latents(factors: np.ndarray) -> np.ndarray:
    latents = np.zeros((len(factors), LATENT_DIMS))
    for factor, home in enumerate(HOMES):
        latents[:, home] = factors[:, factor] - 1.0
    return latents


def perfect(repeats: int = 20) -> Representation:
    factors = factorial(repeats)
    return represent(perfect_latents(factors), factors)


def copied() -> Representation:
    """Factor 1 lives in latent 0 and again, scaled, in latent 2."""
    factors = factorial()
    latents = perfect_latents(factors)
    latents[:, 2] = 3 - 2 * latents[:, HOMES[1]]
    return represent(latents, factors)


def rotated(noise: float = 0.0) -> Representation:
    """Two factors of four values in two latents at 45 degrees; a third latent is empty."""
    cells = np.stack(np.unravel_index(np.arange(16), (4, 4)), axis=1)
    factors = np.random.default_rng(3).permutation(np.repeat(cells, 80, axis=0))
    one, other = (factors - 1.5).T
    latents = np.stack([(one + other) / 2**0.5, (one - other) / 2**0.5, 0 * one], axis=1)
    latents[:, :2] += noise * np.random.default_rng(4).standard_normal((len(factors), 2))
    return represent(latents, factors)


def unrelated(repeats: int = 20) -> Representation:
    """Latents that know nothing."""
    factors = factorial(repeats)
    return represent(np.random.default_rng(5).standard_normal((len(factors), LATENT_DIMS)), factors)


def entangled() -> Representation:
    """Noisy mixtures of all factors, of no special value."""
    factors, random = factorial(), np.random.default_rng(6)
    latents = factors @ random.standard_normal((len(VALUES), LATENT_DIMS))
    return represent(latents + 0.5 * random.standard_normal(latents.shape), factors)


ORDER = np.array([3, 0, 4, 2, 1])


def permuted_and_scaled(of: Representation) -> Representation:
    """The same latents in another order, in other units and moved."""
    scale, shift = np.array([3.7, 0.4, 12.0, 1.0, 0.9]), np.array([5.0, -1.0, 0.0, 100.0, 2.0])
    return represent(of.latents[:, ORDER] * scale + shift, of.factors)
