"""Contenders at the same work in turn, round after round, so that all meet the same weather.

A contender's rate is work per second of this process on the processor, summed over its threads:
on a machine that others use, the wall says who else was there. With one thread and an idle machine
both are the same; with several the processor counts those that wait for each other as well, and the
wall is what ratios must be taken of (`Clock`).
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

import torch

__all__ = ["Clock", "Contender", "Contest", "Role", "Timed", "measure", "ours_and_compiled"]

Role = Literal["ours", "peer", "ceiling"]
Clock = Literal["processor", "wall"]

_CPU = torch.device("cpu")


@dataclass(frozen=True)
class Contender:
    """One way to do the work."""

    name: str
    role: Role
    run: Callable[[], object] | None
    """Does it once; None: cannot be run here, and `note` says why."""
    amount: float
    """Work of one run, in the unit of the contest. For a ceiling: what arithmetic alone allows."""
    note: str = ""


def ours_and_compiled(
    plain: Contender, compiled: Callable[[], object] | None
) -> tuple[Contender, ...]:
    """Ours; where there is a compiled way of it, that is ours, and the plain one of the others."""
    if compiled is None:
        return (plain,)
    return (
        replace(plain, name=f"{plain.name}, compiled", run=compiled),
        replace(plain, name=f"{plain.name}, not compiled", role="peer"),
    )


@dataclass(frozen=True)
class Contest:
    """The same work for all."""

    work: str
    size: str
    unit: str
    """What rates count: vectors, tokens, images, GFLOP."""
    contenders: tuple[Contender, ...]
    in_a_row: int = 1
    """Runs of a turn. The first of several is not timed: a step of a training follows itself, not
    what another one has left in the caches."""
    device: torch.device = _CPU
    """Is waited for before the clock is read."""


@dataclass
class Timed:
    """What one contender came to."""

    contest: Contest
    contender: Contender
    processor_seconds: list[float] = field(default_factory=list)
    wall_seconds: list[float] = field(default_factory=list)

    def seconds(self, clock: Clock) -> float:
        """Median; NaN where nothing ran."""
        taken = self.processor_seconds if clock == "processor" else self.wall_seconds
        return statistics.median(taken) if taken else float("nan")

    def rate(self, clock: Clock) -> float:
        """Work per second."""
        return self.contender.amount / self.seconds(clock)

    def spread(self, clock: Clock) -> float:
        """Largest over smallest time."""
        taken = self.processor_seconds if clock == "processor" else self.wall_seconds
        return max(taken) / min(taken) if taken else float("nan")


def measure(contest: Contest, rounds: int, warm_up: bool = True) -> list[Timed]:
    """Let everyone have a turn `rounds` times, after a run for nothing."""
    found = [Timed(contest, contender) for contender in contest.contenders]
    if warm_up:
        for contender in contest.contenders:
            if contender.run is not None:
                contender.run()
    for _ in range(rounds):
        for timed in found:
            if timed.contender.run is None:
                continue
            if contest.in_a_row > 1:
                timed.contender.run()
            _wait_for(contest.device)
            for _ in range(max(1, contest.in_a_row - 1)):
                processor, wall = time.process_time(), time.perf_counter()
                timed.contender.run()
                _wait_for(contest.device)
                timed.processor_seconds.append(time.process_time() - processor)
                timed.wall_seconds.append(time.perf_counter() - wall)
    return found


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
