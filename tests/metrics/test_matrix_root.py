import mpmath
import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from stages.metrics.matrix_root import root_trace

random = torch.Generator().manual_seed(0)


def factor(dim: int, rank: int, decay: float = 0) -> torch.Tensor:
    noise = torch.randn(dim, rank, generator=random, dtype=torch.float64)
    return noise * torch.logspace(0, -decay, rank, dtype=torch.float64)


def by_many_digits(first: torch.Tensor, second: torch.Tensor) -> float:
    """The nuclear norm with fifty digits."""
    with mpmath.workdps(50):
        across = mpmath.matrix(first.T.tolist()) * mpmath.matrix(second.tolist())
        return float(sum(mpmath.svd_r(across, compute_uv=False)))


@pytest.mark.parametrize("decay", [0, 3, 8])
def test_agrees_with_fifty_digits_however_badly_conditioned(decay: float) -> None:
    first, second = factor(14, 14, decay), factor(14, 14, decay)
    expected = by_many_digits(first, second)
    assert root_trace(first, second) == pytest.approx(expected, rel=1e-8)


@pytest.mark.parametrize(("first", "second"), [(3, 12), (12, 3), (5, 2), (1, 1)])
def test_agrees_with_fifty_digits_for_singular_covariances(first: int, second: int) -> None:
    factors = factor(12, first), factor(12, second)
    assert root_trace(*factors) == pytest.approx(by_many_digits(*factors), rel=1e-8)


def test_agrees_with_a_general_matrix_root() -> None:
    first, second = factor(9, 20), factor(9, 30)
    root = sqrtm((first @ first.T @ second @ second.T).numpy())
    assert root_trace(first, second) == pytest.approx(np.trace(root).real)


def test_commuting_covariances_have_a_closed_form() -> None:
    turn, _ = torch.linalg.qr(factor(7, 7))
    first, second = (torch.rand(7, generator=random, dtype=torch.float64) for _ in range(2))
    # diag(a)^2 and diag(b)^2 turned alike: the root's trace is sum of a b.
    assert root_trace(turn * first, turn * second) == pytest.approx((first @ second).item())


def test_a_factor_is_as_good_as_another() -> None:
    first, second = factor(8, 11), factor(8, 6)
    turn, _ = torch.linalg.qr(factor(11, 11))
    assert root_trace(first @ turn, second) == pytest.approx(root_trace(first, second))


def test_orthogonal_or_empty_ranges_share_nothing() -> None:
    axes = torch.eye(5, dtype=torch.float64)
    assert root_trace(axes[:, :2], axes[:, 2:]) == 0
    assert root_trace(axes[:, :0], axes) == 0
