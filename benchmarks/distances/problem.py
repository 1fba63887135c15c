"""Covariances whose root has a known trace, and features to compare.

With any covariance C1 and any symmetric positive definite T, let C2 = T C1 T. Then

    C1^(1/2) C2 C1^(1/2) = (C1^(1/2) T C1^(1/2))^2,    so the trace of its root is tr(C1 T)

exactly, in any dimension, though C1 and C2 do not commute. The spectrum of C1 falls by five powers
of ten, as that of network features does.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

__all__ = ["Features", "Roots", "make_features", "make_roots"]

_FALL = 5
_STRETCH = 2.0


@dataclass(frozen=True)
class Roots:
    """Two covariances and the trace of the root of their product."""

    first: Float64[Tensor, "dim dim"]
    second: Float64[Tensor, "dim dim"]
    trace: float


@dataclass(frozen=True)
class Features:
    """Two sets, float32 as networks give them, at some distance from each other."""

    samples: Tensor
    reference: Tensor


def make_roots(dim: int, seed: int) -> Roots:
    """Covariances of this dimension."""
    generator = torch.Generator().manual_seed(seed)

    def turn() -> Tensor:
        noise = torch.randn(dim, dim, generator=generator, dtype=torch.float64)
        return torch.linalg.qr(noise)[0]

    def symmetric(values: Tensor) -> Tensor:
        axes = turn()
        whole = (axes * values) @ axes.T
        return (whole + whole.T) / 2

    first = symmetric(torch.logspace(0, -_FALL, dim, dtype=torch.float64))
    moved = symmetric(torch.logspace(-1, 1, dim, base=_STRETCH, dtype=torch.float64))
    second = moved @ first @ moved
    return Roots(first, (second + second.T) / 2, (first * moved).sum().item())


def make_features(dim: int, images: int, seed: int) -> Features:
    """Normal features with a falling spectrum, rectified: most of them are at 0 for some images."""
    generator = torch.Generator().manual_seed(seed)
    scale = torch.logspace(0, -_FALL / 2, dim)
    mixing = torch.randn(dim, dim, generator=generator) / dim**0.5

    def draw(shift: float) -> Tensor:
        noise = torch.randn(images, dim, generator=generator)
        return ((noise * scale) @ mixing * 3 + shift).relu()

    return Features(draw(0.3), draw(0.25))
