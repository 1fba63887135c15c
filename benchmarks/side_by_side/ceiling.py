"""The machine's own ceiling: how fast it multiplies matrices, in the precision it is fastest at.

Not every processor is fast at bf16: one without AVX-512 or AMX emulates it, forty times slower than
float32. So both are measured, a small product each, and the faster one is the ceiling.

On a GPU, bf16.

The product is large enough for several threads: with AMX, one of 1024 x 1024 ran at 1,154 GFLOP/s
on one core and at 1,364 on two, one of 4096 x 4096 at 978 and 1,763.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache

import torch

from benchmarks.side_by_side.contest import Contender

__all__ = ["SIZE", "Ceiling", "ceiling_contender", "fastest_precision", "product"]

SIZE = 4096
"""Rows and columns of the product that is the ceiling."""
_TRIED = 256
"""Rows of the products that choose the precision."""
_TRIALS = 5
"""Of each; the least time counts, for the first product sets up and others may be interrupted."""


@dataclass(frozen=True)
class Ceiling:
    """A square matrix product."""

    size: int
    precision: torch.dtype

    @property
    def flop(self) -> float:
        """Of one product."""
        return 2.0 * self.size**3


@cache
def fastest_precision(device: torch.device) -> torch.dtype:
    """float32 or bfloat16, whichever a product of this machine is faster in now."""
    if device.type == "cuda":
        return torch.bfloat16
    return min((torch.float32, torch.bfloat16), key=_seconds)


def _seconds(precision: torch.dtype) -> float:
    run = product(Ceiling(_TRIED, precision), torch.device("cpu"))
    times = []
    for _ in range(_TRIALS):
        started = time.process_time()
        run()
        times.append(time.process_time() - started)
    return min(times)


def product(ceiling: Ceiling, device: torch.device) -> Callable[[], object]:
    """The product, ready to run."""
    first, second = torch.randn(2, ceiling.size, ceiling.size).to(device, ceiling.precision)
    return lambda: first @ second


def ceiling_contender(flop_per_unit: float, device: torch.device) -> Contender:
    """The product as a contender: so much work could be done, were all of it such a product.

    Args:
        flop_per_unit: Floating-point operations that one unit of the contest's work takes.
        device: Where to multiply.
    """
    ceiling = Ceiling(SIZE, fastest_precision(device))
    kind = str(ceiling.precision).removeprefix("torch.")
    return Contender(
        f"{kind} product of {SIZE} x {SIZE}",
        "ceiling",
        product(ceiling, device),
        ceiling.flop / flop_per_unit,
    )
