"""A sweep made ready: file, parameters, stages and points read and checked, nothing run yet."""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipelines.settings.line_config import SweepConfig
from pipelines.settings.params_overlay import checked_overlay, read_params
from pipelines.sweeping.figure_names import doubts, require_known
from pipelines.sweeping.file import Sweep, covering, read_sweep
from pipelines.sweeping.plan import PlannedBranch, executions, plan_branches
from pipelines.sweeping.search import Point, open_search, probes
from pipelines.workspace.stage_graph import stage_order, stages_with_upstream
from pipelines.workspace.stage_keys import described_stages, stage_outputs
from stages.core.errors import ParamsError

__all__ = ["PreparedSweep", "prepare_sweep"]

LONGEST = 60
"""Characters of given values in a name; a digest takes the place of more."""
READABLE = re.compile(r"[\w.=+-]+")


@dataclass(frozen=True)
class PreparedSweep:
    """What a run of a sweep goes by."""

    root: Path
    file: str
    """Name of the file."""
    name: str
    """Under which its results stand: that of the file, and the values given beside it."""
    sweep: Sweep
    described: Mapping[str, Any]
    """The stages of dvc.yaml."""
    graph: Mapping[str, Sequence[str]]
    stages: list[str]
    """Those that run, in order."""
    under_all: Mapping[str, Any]
    """Single values under every branch."""
    base: str
    """Text of params.yaml under every branch."""
    parallel: int

    @property
    def outputs(self) -> dict[str, list[str]]:
        """Stage -> paths of what it writes."""
        return stage_outputs(self.described)

    @property
    def folder(self) -> Path:
        """Of its state and its branches."""
        return self.root / ".work" / "sweeps" / self.name

    def branches(self, points: Sequence[Point]) -> list[PlannedBranch]:
        """Branches of these points.

        Raises:
            ParamsError: If some are not valid.
        """
        return plan_branches(
            self.described,
            self.graph,
            self.stages,
            self.name,
            self.base,
            self.sweep.over,
            points,
        )

    def plan(self) -> list[str]:
        """What will run, in lines to read, after all that can be known now was checked.

        Optuna says its points one after another: of them the ends of all axes are checked, and the
        stages they differ in are known.

        Raises:
            ParamsError: If a branch is not valid.
        """
        asks_bit_by_bit = self.sweep.search.kind == "optuna"
        if asks_bit_by_bit:
            points, count = probes(self.sweep), self.sweep.search.count or 0
        else:
            search = open_search(self.sweep, self.folder, self.parallel)
            points, count = search.ask(), search.total
        branches = self.branches(points)
        self._require_steps(branches)
        distinct = executions(branches)
        if asks_bit_by_bit:
            distinct = {stage: count if n > 1 else 1 for stage, n in distinct.items()}
        width = max(map(len, distinct))
        at_most = "at most " if asks_bit_by_bit else ""
        return [
            f"sweep {self.name}: {count} branches of {len(distinct)} stages, "
            f"{at_most}{sum(distinct.values())} executions instead of {count * len(distinct)}",
            *(f"  {stage:{width}}  {n:4}" for stage, n in distinct.items()),
            *doubts(self.sweep, self.root, self.outputs),
        ]

    def _require_steps(self, branches: Sequence[PlannedBranch]) -> None:
        rule, most = self.sweep.pruning, 0
        for branch in branches if rule else ():
            most = max(most, read_params(branch.params)[rule.stage]["steps"])
            if most >= rule.from_step:
                return
        if rule:
            raise ParamsError(
                f"sweep {self.name}: pruning.from_step must not exceed the steps of {rule.stage}, "
                f"or nothing is pruned; got {rule.from_step}, and no branch has more than {most}"
            )


def prepare_sweep(config: SweepConfig) -> PreparedSweep:
    """Read and check all of a sweep.

    Args:
        config: Which, and how.

    Raises:
        ParamsError: If the file, a value, a stage or a branch is not valid; one message.
    """
    root = Path(config.workspace).resolve()
    sweep = read_sweep(config.name)
    graph = stage_order(root)
    stages = stages_with_upstream(graph, sweep.stages)
    for what, rule in sweep.rules.items():
        if rule.stage not in stages:
            raise ParamsError(
                f"sweep {config.name}: {what}.stage must be one that runs; got {rule.stage!r}, "
                f"there are: {', '.join(stages)}"
            )
    require_known(sweep, config.name)
    for value in config.set:
        if axis := covering(value, sweep.over, itself=True):
            raise ParamsError(
                f"sweep {config.name}: --set {value}: the axis {axis!r} sets it in every branch; "
                "leave it out, or change the axis in the file"
            )
    path = root / "params.yaml"
    under_all = {**sweep.set, **config.set}
    base = checked_overlay(path.read_text(encoding="utf-8"), sweep.preset, under_all)
    if sweep.pruning:
        _require_training(config.name, sweep.pruning.stage, stages, read_params(base))
    return PreparedSweep(
        root,
        config.name,
        _name(config),
        sweep,
        described_stages(root),
        graph,
        stages,
        under_all,
        base,
        config.parallel or sweep.parallel,
    )


def _require_training(
    sweep: str, stage: str, stages: Sequence[str], params: Mapping[str, Any]
) -> None:
    trainings = [each for each in stages if "steps" in params.get(each, {})]
    if stage not in trainings:
        raise ParamsError(
            f"sweep {sweep}: pruning.stage must be a training; got {stage!r}, there are: "
            f"{', '.join(trainings)}"
        )


def _name(config: SweepConfig) -> str:
    """Under other values another one, so that the results of several seeds stand side by side."""
    if not config.set:
        return config.name
    values = {name: json.dumps(value) for name, value in sorted(config.set.items())}
    told = "+".join(f"{name}={value}" for name, value in values.items())
    # It names folders and references of git.
    if len(told) > LONGEST or not READABLE.fullmatch(told) or ".." in told:
        told = hashlib.sha256(json.dumps(values).encode()).hexdigest()[:8]
    return f"{config.name}+{told}"
