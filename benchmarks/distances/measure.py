"""Each way to a figure in turn, round after round, so that all meet the same weather.

Seconds are of this process on the processor, summed over its threads, and those on the wall: on a
machine that others use only the former say something; they are what ratios are taken of. With more
than one thread they count those that wait for each other too, so measure with one.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

__all__ = ["Task", "Timed", "measure"]


@dataclass(frozen=True)
class Task:
    """One figure, and the ways to it; the first way is ours."""

    figure: str
    dim: int
    images: int | None
    """Of each set; None: covariances are given."""
    ways: dict[str, Callable[[], float]]
    exact: float | None
    """Where it is known; else others are held against us."""


@dataclass
class Timed:
    """What one way came to."""

    task: Task
    way: str
    value: float = float("nan")
    processor_seconds: list[float] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)

    @property
    def processor(self) -> float:
        """Median seconds."""
        return statistics.median(self.processor_seconds)

    @property
    def wall(self) -> float:
        """Median seconds."""
        return statistics.median(self.wall_seconds)


def measure(task: Task, repeats: int) -> list[Timed]:
    """Go through all ways `repeats` times."""
    found = [Timed(task, way) for way in task.ways]
    for _ in range(repeats):
        for timed in found:
            processor, wall = time.process_time(), time.perf_counter()
            timed.value = task.ways[timed.way]()
            timed.processor_seconds.append(time.process_time() - processor)
            timed.wall_seconds.append(time.perf_counter() - wall)
    return found
