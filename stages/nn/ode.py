"""Ordinary differential equations in a fixed number of steps.

    dx/dt = f(x, t);     k_i = f(x + h sum_j a_ij k_j, t + c_i h);     x <- x + h sum_i b_i k_i

Explicit Runge-Kutta methods by their tables: Euler (error of order h), midpoint and Heun (h^2),
and the classical one of Kutta 1901 (h^4).
"""

from collections.abc import Callable
from typing import Literal

from torch import Tensor

__all__ = ["EVALUATIONS", "Solver", "integrated"]

Solver = Literal["euler", "midpoint", "heun", "rk4"]

# Of each method: rows a_i of every stage (c_i is their sum), then the weights b.
_TABLES: dict[str, tuple[tuple[tuple[float, ...], ...], tuple[float, ...]]] = {
    "euler": (((),), (1.0,)),
    "midpoint": (((), (0.5,)), (0.0, 1.0)),
    "heun": (((), (1.0,)), (0.5, 0.5)),
    "rk4": (((), (0.5,), (0.0, 0.5), (0.0, 0.0, 1.0)), (1 / 6, 1 / 3, 1 / 3, 1 / 6)),
}
EVALUATIONS = {name: len(weights) for name, (_, weights) in _TABLES.items()}
"""Evaluations of f in a step."""


def integrated(
    field: Callable[[Tensor, float], Tensor],
    state: Tensor,
    start: float,
    stop: float,
    steps: int,
    solver: Solver,
) -> Tensor:
    """The state at time `stop`.

    Args:
        field: f, of a state and a time.
        state: At time `start`.
        start: First time.
        stop: Last time; before `start` to go back.
        steps: Equal steps between them.
        solver: Method.
    """
    rows, weights = _TABLES[solver]
    size = (stop - start) / steps
    for step in range(steps):
        time = start + step * size
        slopes: list[Tensor] = []
        for row in rows:
            slopes.append(field(_moved(state, slopes, row, size), time + sum(row) * size))
        state = _moved(state, slopes, weights, size)
    return state


def _moved(state: Tensor, slopes: list[Tensor], by: tuple[float, ...], size: float) -> Tensor:
    for slope, weight in zip(slopes, by, strict=True):
        if weight:
            state = state + (size * weight) * slope
    return state
