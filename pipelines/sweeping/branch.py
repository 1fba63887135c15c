"""One branch of a sweep at work: its stages in turn, in its own folder, under its own record.

A branch may be worked on twice: first up to a stage it shares with others and runs for them all,
then to its end. What it has done in between is there, in the shared cache or already recorded.
"""

import hashlib
import json
import shutil
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from pipelines.records.figures import stage_figures
from pipelines.records.line_record import LineRecord
from pipelines.sweeping.accelerators import Accelerators
from pipelines.sweeping.figure_names import no_such_figure
from pipelines.sweeping.file import Sweep
from pipelines.sweeping.plan import PlannedBranch
from pipelines.sweeping.pruning import Curve, Curves, Progress, Pruned, curve_of_history
from pipelines.sweeping.record import SweepRecord
from pipelines.workspace.branches import Branch, BranchFailed, make_branch
from pipelines.workspace.dvc_experiments import save_experiment
from pipelines.workspace.reproduce import reproduce, stage_environment
from pipelines.workspace.stage_graph import stages_with_upstream
from stages.core.errors import LatentlineError, ParamsError
from stages.core.journal import journal_folders

__all__ = ["BranchLine", "Stopped", "SweepPlace", "require_going_on"]


class Stopped(LatentlineError):
    """The sweep ends, so its branches do; run it again to go on."""


def require_going_on(stop: threading.Event) -> None:
    """End the work on a branch if the sweep ends.

    Raises:
        Stopped: If it does.
    """
    if stop.is_set():
        raise Stopped("the sweep was stopped; run it again to go on")


@dataclass(frozen=True)
class SweepPlace:
    """What the branches of one run of a sweep have in common."""

    root: Path
    folder: Path
    """Of the sweep."""
    sweep: Sweep
    commit: str
    graph: Mapping[str, Sequence[str]]
    outputs: Mapping[str, list[str]]
    """Stage -> paths."""
    record: SweepRecord
    tags: Mapping[str, str]
    """Of every branch's run."""
    timeout_minutes: float
    lock: int
    """Descriptor of the sweep's lock; what outlives a kill keeps it."""
    curves: Curves | None
    """Where branches are pruned."""
    stop: threading.Event = field(default_factory=threading.Event)
    there: set[str] = field(default_factory=set)
    """Keys of executions that have reached their end."""


@final
class BranchLine:
    """The work on one branch.

    Args:
        place: Of the sweep.
        planned: The branch.
    """

    def __init__(self, place: SweepPlace, planned: PlannedBranch) -> None:
        self.planned = planned
        self._place = place
        self._branch: Branch | None = None
        self._record: LineRecord | None = None
        self._record_is_open = False
        self._done: set[str] = set()
        self.at = ""
        """The stage it is at."""
        self.figures: dict[str, float] = {}
        """Of the stage that judges, once it has ended."""
        self.curve: Curve = {}
        """Of the training by which branches are pruned, as far as it is known."""
        self.seconds = 0.0
        """Of work in this process."""

    @property
    def folder(self) -> Path:
        """Its clone."""
        return self._place.folder / self.planned.name

    @property
    def asked(self) -> dict[str, Any]:
        """All that decides what comes out of it."""
        stages = list(self.planned.keys)
        return {
            "params": self.planned.params,
            "commit": self._place.commit,
            "stages": stages,
            "objective": self._place.sweep.objective.model_dump(),
        }

    @property
    def is_there(self) -> bool:
        """Whether its clone has been made."""
        return (self.folder / ".git").is_dir()

    @property
    def run_id(self) -> str | None:
        """Of its record in MLflow."""
        return self._record.run_id if self._record else None

    def advance(
        self, stages: Sequence[str], log: Callable[[str], None], accelerators: Accelerators
    ) -> None:
        """Bring these stages up to date, those before them included.

        Args:
            stages: In order.
            log: Told each line of output.
            accelerators: Those the stages see.

        Raises:
            StageFailed: If one does not reach its end.
            Pruned: If the branch is hopeless.
            Stopped: If the sweep ends.
            BranchFailed: If the branch cannot be made.
            ParamsError: If a stage does not have the figure by which it is judged or pruned.
        """
        start = time.monotonic()
        try:
            self.at = stages[0]
            branch, record = self._opened()
            # What others have run is brought from the cache by the first that needs it.
            there = {stage for stage in stages if self.planned.keys[stage] in self._place.there}
            for self.at in [*(s for s in stages if s not in there), *stages]:
                if self.at not in self._done:
                    self._run(branch, record, self.at, log, accelerators)
        finally:
            self.seconds += time.monotonic() - start

    def _opened(self) -> tuple[Branch, LineRecord]:
        place, planned = self._place, self.planned
        if self._branch is None:
            self._branch = make_branch(
                place.root,
                self.folder,
                planned.params,
                place.record.experiment,
                commit=place.commit,
            )
        if self._record is None:
            self._record = LineRecord.open(
                self.folder,
                planned.name,
                {
                    **place.tags,
                    **place.record.branch_tags,
                    "dvc.exp": planned.name,
                    "latentline.values": planned.told,
                },
                place.root,
                experiment=place.record.experiment,
                receipt=self._kept("record"),
            )
            self._record_is_open = True
        return self._branch, self._record

    def _run(
        self,
        branch: Branch,
        record: LineRecord,
        stage: str,
        log: Callable[[str], None],
        accelerators: Accelerators,
    ) -> None:
        start = time.monotonic()
        additions = {**record.environment(), **accelerators.environment, "PYTHONPATH": ""}
        environment = stage_environment(additions, record.removed)
        try:
            reproduce(
                stage,
                branch.folder,
                lambda line: log(line) if line else None,
                environment=environment,
                timeout_minutes=self._place.timeout_minutes,
                force=False,
                keep_open=[self._place.lock, *accelerators.locks],
                watch=self._watch(stage),
                restore=True,
            )
        except Pruned as why:
            self._deliver_left(branch, log)
            record.stage_pruned(stage, str(why))
            raise
        for each in stages_with_upstream(dict(self._place.graph), [stage]):
            if each not in self._done:
                self._done.add(each)
                self._place.there.add(self.planned.keys[each])
                seconds = time.monotonic() - start if each == stage else 0.0
                made = record.stage_finished(each, seconds)
                log(f"{each}: {'executed' if made.executed else 'cached'}")
                self._note_curve(branch, each)
                # Not at the end of the branch: the stages until there may take hours.
                if each == self._place.sweep.objective.stage:
                    self._figures()

    def _note_curve(self, branch: Branch, stage: str) -> None:
        place, rule = self._place, self._place.sweep.pruning
        if rule and stage == rule.stage and place.curves:
            curve = curve_of_history(branch.folder, place.outputs[stage], rule.figure)
            self._put(stage, curve)
            if place.curves.are_empty:
                found = stage_figures(branch.folder, place.outputs[stage])
                raise ParamsError(no_such_figure("pruning", rule.stage, rule.figure, found))

    def _watch(self, stage: str) -> Callable[[], None]:
        place, rule = self._place, self._place.sweep.pruning
        progress = self._progress(stage) if rule and stage == rule.stage else None

        def watch() -> None:
            require_going_on(place.stop)
            if progress is not None and place.curves is not None and progress.look():
                self._put(stage, progress.curve)
                why = place.curves.verdict(self.group(stage), self.planned.keys[stage])
                if why:
                    raise Pruned(why)

        return watch

    def _progress(self, stage: str) -> Progress:
        rule = self._place.sweep.pruning
        assert rule is not None
        return Progress(self.folder, stage, rule.figure, self._kept("progress"))

    def group(self, stage: str) -> str:
        """Executions of a stage with the same inputs have the same."""
        return " ".join(self.planned.keys[other] for other in self._place.graph[stage])

    def _put(self, stage: str, curve: Mapping[int, float]) -> None:
        assert self._place.curves is not None
        self.curve = dict(curve)
        self._place.curves.put(self.group(stage), self.planned.keys[stage], curve)

    def _kept(self, name: str) -> Path:
        # Of another question it would be the wrong one.
        digest = hashlib.sha256(json.dumps(self.asked, sort_keys=True).encode()).hexdigest()[:8]
        return self.folder / ".work" / f"{name}-{digest}.json"

    def end(self, log: Callable[[str], None]) -> None:
        """Take its figures, make it an experiment of DVC, end its record, and clear it away.

        What it has made is in the cache: `dvc checkout` in its folder brings it back.

        Args:
            log: Told what DVC says.

        Raises:
            BranchFailed: If DVC refuses.
        """
        assert self._branch is not None
        self.figures = self._figures()
        self._deliver_left(self._branch, log)
        save_experiment(self._branch, self.planned.name, list(self.planned.keys), log)
        self.finish("FINISHED")
        shutil.rmtree(self.folder / "data", ignore_errors=True)

    def _deliver_left(self, branch: Branch, log: Callable[[str], None]) -> None:
        """What stages had logged that were stopped before all of it was sent."""
        if journal_folders(self.folder):
            with suppress(BranchFailed):
                branch.python("stages.upload_history", log=log)

    def _figures(self) -> dict[str, float]:
        objective = self._place.sweep.objective
        found = stage_figures(self.folder, self._place.outputs[objective.stage])
        if objective.figure not in found:
            raise ParamsError(no_such_figure("objective", objective.stage, objective.figure, found))
        return found

    def finish(self, status: str) -> None:
        """End its record, if it has one that is open.

        Args:
            status: FINISHED, FAILED or KILLED.
        """
        if self._record is not None and self._record_is_open:
            self._record.finish(status)
            self._record_is_open = False
