"""Each way in turn, round after round, so that all meet the same weather.

Processor seconds are of all processes a way has started and waited for, and of the servers
meanwhile; on a machine that others use only they say something, and ratios are taken of them. Wall
seconds say what a person waits, and who else was there.
"""

import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.orchestration.copies import Copy

__all__ = ["Timed", "Way", "measure"]


@dataclass(frozen=True)
class Way:
    """One way to bring a copy up to date."""

    task: str
    name: str
    run: Callable[[Copy], dict[str, int]]
    """Returns stage -> how often it was executed."""


@dataclass
class Timed:
    """What one way came to."""

    way: Way
    executed: dict[str, int] = field(default_factory=dict)
    processor_seconds: list[float] = field(default_factory=list)
    server_seconds: list[float] = field(default_factory=list)
    """Of `processor_seconds`, those of the servers."""
    wall_seconds: list[float] = field(default_factory=list)

    @property
    def processor(self) -> float:
        """Median seconds."""
        return statistics.median(self.processor_seconds)

    @property
    def servers(self) -> float:
        """Median seconds."""
        return statistics.median(self.server_seconds)

    @property
    def wall(self) -> float:
        """Median seconds."""
        return statistics.median(self.wall_seconds)


def measure(ways: list[Way], copy: Callable[[], Copy], rounds: int) -> list[Timed]:
    """Go through all ways `rounds` times.

    Args:
        ways: The first is what others are held against.
        copy: Gives the copy to work in, before the clock runs.
        rounds: How often.
    """
    found = [Timed(way) for way in ways]
    for _ in range(rounds):
        for timed in found:
            place = copy()
            servers, children, wall = place.server_seconds(), _children(), time.perf_counter()
            timed.executed = timed.way.run(place)
            timed.wall_seconds.append(time.perf_counter() - wall)
            timed.server_seconds.append(place.server_seconds() - servers)
            own = _children() - children
            timed.processor_seconds.append(own + timed.server_seconds[-1])
    return found


def _children() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
