"""A sweep before anything runs: its branches, whether they are valid, what they have in common.

A branch is known by its values: its name is a digest of them, so the same branch is found again
when the file has gained others meanwhile.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from pipelines.settings.params_overlay import checked_values, overlaid, read_params
from pipelines.sweeping.file import Range
from pipelines.workspace.stage_keys import stage_keys
from stages.core.errors import ParamsError

__all__ = [
    "InvalidBranches",
    "PlannedBranch",
    "Shared",
    "executions",
    "plan_branches",
    "shared_executions",
    "shown",
]

TOLD_AT_ONCE = 3
"""Invalid branches that a message speaks of."""


class InvalidBranches(ParamsError):
    """The stages would not accept the parameters of some branches.

    Attributes:
        reasons: Name of each -> what is wrong with it.
    """

    def __init__(self, message: str, reasons: Mapping[str, str]) -> None:
        super().__init__(message)
        self.reasons = dict(reasons)


@dataclass(frozen=True)
class PlannedBranch:
    """One point of the sweep."""

    name: str
    """Of its folder and of its DVC experiment."""
    values: dict[str, Any]
    """Dotted name -> value."""
    base: str
    """Text of params.yaml under every branch."""
    keys: dict[str, str]
    """Stage -> key of its execution, in the order they run."""
    told: str
    """Its values in one line."""

    @cached_property
    def params(self) -> str:
        """Text of its params.yaml."""
        return overlaid(self.base, None, self.values)


@dataclass(frozen=True)
class Shared:
    """An execution that several branches need."""

    stage: str
    key: str
    owner: PlannedBranch
    """In whose folder it runs."""
    count: int
    """How many branches need it."""


def plan_branches(
    described: Mapping[str, Any],
    graph: Mapping[str, Sequence[str]],
    stages: Sequence[str],
    sweep: str,
    base: str,
    over: Mapping[str, Sequence[Any] | Range],
    points: Sequence[Mapping[str, Any]],
) -> list[PlannedBranch]:
    """Resolve and check every branch.

    Args:
        described: From `pipelines.workspace.stage_keys.described_stages`.
        graph: From `pipelines.workspace.stage_graph.stage_order`.
        stages: Those that run, in order.
        sweep: Name of the sweep.
        base: Text of params.yaml under every branch.
        over: The axes, by which values are told apart.
        points: Dotted name -> value, of each branch.

    Raises:
        InvalidBranches: If some are not valid; the first of them, with their values.
    """
    branches, wrong, reasons = [], [], {}
    under_all = read_params(base)
    for number, point in enumerate(points, start=1):
        values = dict(point)
        digest = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]
        told = ", ".join(f"{name}={shown(value, over[name])}" for name, value in values.items())
        try:
            content = checked_values(under_all, values)
        except ParamsError as error:
            reasons[f"{sweep}-{digest}"] = str(error)
            wrong.append(f"sweep {sweep}, branch {number} ({told}): {error}")
            continue
        keys = stage_keys(described, graph, content)
        wanted = {stage: keys[stage] for stage in stages}
        branches.append(PlannedBranch(f"{sweep}-{digest}", values, base, wanted, told))
    if wrong:
        more = len(wrong) - TOLD_AT_ONCE
        rest = [f"and {more} more of {len(points)} branches"] if more > 0 else []
        raise InvalidBranches("\n".join([*wrong[:TOLD_AT_ONCE], *rest]), reasons)
    return branches


def shared_executions(branches: Sequence[PlannedBranch]) -> list[list[Shared]]:
    """Executions that several branches need: per stage, in the order of the stages.

    Those of one stage may run side by side: each has another owner.
    """
    found: list[list[Shared]] = []
    for stage in branches[0].keys if branches else ():
        needed = Counter(branch.keys[stage] for branch in branches)
        owners = {branch.keys[stage]: branch for branch in reversed(branches)}
        several = [
            Shared(stage, key, owners[key], count) for key, count in needed.items() if count > 1
        ]
        if several:
            found.append(several)
    return found


def executions(branches: Sequence[PlannedBranch]) -> dict[str, int]:
    """Stage -> how many distinct executions of it there are."""
    stages = branches[0].keys if branches else ()
    return {stage: len({branch.keys[stage] for branch in branches}) for stage in stages}


def shown(value: Any, axis: Sequence[Any] | Range) -> str:
    """A value in few characters, and no other of its axis in the same.

    Args:
        value: Of a whole section its kind is shown, and of several of one kind where they differ.
        axis: All values it may have.
    """
    short = _short(value)
    others = [] if isinstance(axis, Range) else [other for other in axis if other != value]
    alike = [other for other in others if _short(other) == short]
    if not alike:
        return short
    if not isinstance(value, Mapping):
        return json.dumps(value)
    differing = [
        f"{name}={each if isinstance(each, str) else json.dumps(each)}"
        for name, each in value.items()
        if any(name not in other or other[name] != each for other in alike)
    ]
    return f"{short}({', '.join(differing)})" if differing else short


def _short(value: Any) -> str:
    if isinstance(value, Mapping):
        return str(value.get("kind", json.dumps(value)))
    return f"{value:.4g}" if isinstance(value, float) else str(value)
