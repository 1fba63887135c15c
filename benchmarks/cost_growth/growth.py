"""One core at growing sizes, and the exponents: log cost against log size, least squares.

What is expected is a count of operations and of numbers held, so many at every size; its exponent
is fitted as the measured one is. Small sizes are cheaper than their count says nowhere, but dearer
by what every call costs whatever its size; measured exponents are therefore often below expected
ones. Above them, something grows that should not.
"""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.cost_growth.memory import peak_bytes

__all__ = ["Core", "Growth", "Measured", "exponent", "measure_growth"]

Count = Callable[[int], float]


@dataclass(frozen=True)
class Core:
    """What a stage does most of its time."""

    stage: str
    what: str
    against: str
    """What grows: images, tokens, codes, parameters, rows."""
    sizes: Sequence[int]
    make: Callable[[int], Callable[[], object]]
    """Builds the work of one size."""
    operations: Count
    """Expected, but for a factor."""
    numbers: Count
    """Expected to be held at once, but for a factor."""


@dataclass(frozen=True)
class Measured:
    """At one size."""

    size: int
    seconds: float
    peak: int
    """Bytes."""


@dataclass(frozen=True)
class Growth:
    """What came out for a core."""

    core: Core
    points: list[Measured]

    @property
    def time(self) -> float:
        """Exponent of seconds."""
        return exponent(self.core.sizes, [point.seconds for point in self.points])

    @property
    def memory(self) -> float:
        """Exponent of peak bytes; of sizes whose peak is too small to be seen, 0."""
        return exponent(self.core.sizes, [max(point.peak, 1 << 20) for point in self.points])

    @property
    def expected_time(self) -> float:
        """Exponent of operations."""
        return exponent(self.core.sizes, [self.core.operations(s) for s in self.core.sizes])

    @property
    def expected_memory(self) -> float:
        """Exponent of numbers held."""
        return exponent(self.core.sizes, [self.core.numbers(s) for s in self.core.sizes])


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Slope of log cost over log size."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def measure_growth(core: Core, rounds: int) -> Growth:
    """All sizes in turn, `rounds` times; processor seconds, medians; memory of a run of its own.

    What the first run makes and keeps, such as an optimiser's moments, is there before memory is
    looked at.
    """
    runs = [core.make(size) for size in core.sizes]
    peaks = [_peak_of_the_second(run) for run in runs]
    seconds: list[list[float]] = [[] for _ in runs]
    for _ in range(rounds):
        for run, taken in zip(runs, seconds, strict=True):
            started = time.process_time()
            run()
            taken.append(time.process_time() - started)
    points = [
        Measured(size, statistics.median(taken), peak)
        for size, taken, peak in zip(core.sizes, seconds, peaks, strict=True)
    ]
    return Growth(core, points)


def _peak_of_the_second(run: Callable[[], object]) -> int:
    run()
    return peak_bytes(run)
