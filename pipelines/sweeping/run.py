"""A sweep at work: what is shared first, then the branches, so many side by side, each a task.

    round of points -> branches -> shared executions, stage after stage -> branches to their ends

An execution that failed or was pruned takes with it every branch that needs it, and no other.
"""

import queue
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from typing import Any, final

from prefect import get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.concurrency.sync import concurrency
from prefect.futures import PrefectFuture
from prefect.states import Completed

from pipelines.machine.prefect_setup import worth_retrying
from pipelines.settings.line_config import SweepConfig
from pipelines.sweeping.accelerators import ANY, Accelerators, one_that_is_free
from pipelines.sweeping.branch import BranchLine, Stopped, SweepPlace, require_going_on
from pipelines.sweeping.plan import InvalidBranches, PlannedBranch, shared_executions
from pipelines.sweeping.pruning import Pruned
from pipelines.sweeping.results import BranchOutcome
from pipelines.sweeping.search import Point, open_search
from pipelines.sweeping.setup import PreparedSweep
from pipelines.workspace.kept_outcomes import keep, kept
from pipelines.workspace.stage_graph import stages_with_upstream
from stages.core.errors import ParamsError

__all__ = ["SweepRun"]

POLL_SECONDS = 0.5
SLOT_SECONDS = 10.0
"""So long a branch asks for a slot before it looks whether the sweep still goes on."""
LEASE_SECONDS = 60.0
"""After a kill, its slots are free again after so long."""
LAST_WORDS_SECONDS = 60.0


@dataclass(frozen=True)
class _Turn:
    """A piece of work on a branch."""

    line: BranchLine
    stages: list[str]
    label: str
    is_last: bool
    """Whether the branch has ended then."""


@final
class SweepRun:
    """One run of a sweep.

    Args:
        prepared: The sweep.
        place: What its branches share.
        config: How patiently.
        log: Told what happens.
    """

    def __init__(
        self,
        prepared: PreparedSweep,
        place: SweepPlace,
        config: SweepConfig,
        log: Callable[[str], None],
    ) -> None:
        self._prepared, self._place, self._config, self._log = prepared, place, config, log
        self._lines: dict[str, BranchLine] = {}
        self._bad: dict[str, tuple[str, str]] = {}
        """Key of an execution that did not reach its end -> `pruned` or `failed`, and why."""
        self.outcomes: dict[str, BranchOutcome] = {}
        """By name of the branch."""

    def to_end(self) -> None:
        """Run what is missing.

        Raises:
            ParamsError: If a stage does not have the figure by which it is judged or pruned.
        """
        prepared = self._prepared
        search = open_search(prepared.sweep, prepared.folder, prepared.parallel)
        while points := search.ask():
            branches = [self._planned(point) for point in points]
            self._round([branch for branch in branches if branch is not None], search.total)
            for point, branch in zip(points, branches, strict=True):
                if branch is None:
                    search.tell(point, "failed", None, {})
                    continue
                outcome = self.outcomes[branch.name]
                curve = {int(step): value for step, value in outcome.curve.items()}
                search.tell(point, outcome.state, outcome.objective, curve)

    def _planned(self, point: Point) -> PlannedBranch | None:
        """The branch of a point; None for one of Optuna's that is not valid."""
        try:
            return self._prepared.branches([point])[0]
        except InvalidBranches as error:
            self._log(str(error))
            [(name, why)] = error.reasons.items()
            self.outcomes[name] = BranchOutcome(
                name, point, "failed", None, {}, 0.0, None, why, {}, is_valid=False
            )
            return None

    def _round(self, branches: Sequence[PlannedBranch], total: int) -> None:
        # Optuna may ask for a point twice; nobody else works in a branch meanwhile.
        branches = list({branch.name: branch for branch in branches}.values())
        missing = [branch for branch in branches if not self._is_kept(branch)]
        if len(missing) < len(branches):
            self._log(f"{len(branches) - len(missing)} of {total} branches are there already")
        for of_stage in shared_executions(missing):
            self._side_by_side(
                _Turn(
                    self._line(shared.owner),
                    stages_with_upstream(dict(self._prepared.graph), [shared.stage]),
                    f"{shared.stage}, shared by {shared.count}",
                    is_last=False,
                )
                for shared in of_stage
            )
        self._side_by_side(
            _Turn(self._line(branch), list(branch.keys), branch.name, is_last=True)
            for branch in missing
        )
        for branch in missing:
            if branch.name not in self.outcomes:
                self._give_up(branch)

    def _line(self, branch: PlannedBranch) -> BranchLine:
        return self._lines.setdefault(branch.name, BranchLine(self._place, branch))

    def _is_kept(self, branch: PlannedBranch) -> bool:
        line, rule = self._line(branch), self._place.sweep.pruning
        found = kept(line.folder, line.asked)
        if found is None and rule:
            # Under another rule it might not be hopeless.
            found = kept(line.folder, line.asked | {"pruning": rule.model_dump()})
        if found is None:
            return False
        outcome = BranchOutcome(**found)
        self.outcomes[branch.name] = outcome
        if rule and self._place.curves:
            curve = {int(step): value for step, value in outcome.curve.items()}
            self._place.curves.put(line.group(rule.stage), branch.keys[rule.stage], curve)
            if outcome.state == "pruned":
                self._bad[branch.keys[rule.stage]] = ("pruned", outcome.why)
        return True

    def _side_by_side(self, turns: Iterator[_Turn]) -> None:
        waiting, working = deque(turns), dict[PrefectFuture[Any], _Turn]()
        ended: queue.Queue[PrefectFuture[Any]] = queue.Queue()
        try:
            while waiting or working:
                while waiting and len(working) < self._prepared.parallel:
                    turn = waiting.popleft()
                    if self._verdict(turn.line.planned, turn.stages) is None:
                        working[self._submit(turn, ended)] = turn
                if not working:
                    continue
                try:
                    future = ended.get(timeout=POLL_SECONDS)
                except queue.Empty:
                    continue
                future.wait()
                self._settle(working.pop(future), future.state)
        except BaseException:
            self._place.stop.set()
            for future in working:
                future.wait(LAST_WORDS_SECONDS)
            raise

    def _submit(self, turn: _Turn, ended: "queue.Queue[PrefectFuture[Any]]") -> PrefectFuture[Any]:
        config = self._config
        work = _work.with_options(
            name=turn.label,
            task_run_name=turn.label,
            retries=config.retries,
            retry_delay_seconds=config.retry_delays_seconds,
            retry_condition_fn=worth_retrying,
        )
        future = work.submit(turn, self._place.stop, config)
        future.add_done_callback(ended.put)
        return future

    def _settle(self, turn: _Turn, state: State[Any]) -> None:
        line = turn.line
        if state.is_completed() and state.name != "Pruned":
            if turn.is_last:
                self._note(line.planned, "finished", "", line)
            return
        error = state.result(raise_on_failure=False)
        if isinstance(error, ParamsError):
            # All parameters were checked: what is wrong is the sweep itself. The cache has what the
            # branch has done.
            line.finish("FAILED")
            raise error
        how = "pruned" if state.name == "Pruned" else "failed"
        why = str(state.message if how == "pruned" else error)
        self._bad[line.planned.keys[line.at]] = (how, why)
        if turn.is_last:
            self._give_up(line.planned)
        else:
            line.finish("KILLED" if how == "pruned" else "FAILED")

    def _verdict(self, branch: PlannedBranch, stages: Sequence[str]) -> tuple[str, str] | None:
        keys = [branch.keys[stage] for stage in stages]
        return next((self._bad[key] for key in keys if key in self._bad), None)

    def _give_up(self, branch: PlannedBranch) -> None:
        how, why = self._verdict(branch, list(branch.keys)) or ("failed", "it was not reached")
        line = self._line(branch)
        line.finish("KILLED" if how == "pruned" else "FAILED")
        self._note(branch, how, why, line)

    def _note(self, branch: PlannedBranch, state: str, why: str, line: BranchLine) -> None:
        objective = self._place.sweep.objective
        curve = line.curve
        reached = line.figures.get(objective.figure)
        if state == "pruned" and self._place.sweep.pruning and curve:
            is_the_same = objective.figure == self._place.sweep.pruning.figure
            reached = min(curve.values()) if is_the_same else None
        outcome = BranchOutcome(
            branch.name,
            branch.values,
            state,
            reached,
            line.figures,
            line.seconds,
            line.run_id,
            why,
            {str(step): value for step, value in curve.items()},
        )
        self.outcomes[branch.name] = outcome
        shown = "" if reached is None else f", {objective.figure} {reached:.5g}"
        because = f": {why}" if why else ""
        self._log(f"{branch.name} ({branch.told}): {state}{shown}{because}")
        rule = self._place.sweep.pruning
        if state != "failed" and line.is_there:
            asked = line.asked
            if state == "pruned" and rule:
                asked = asked | {"pruning": rule.model_dump()}
            keep(line.folder, asked, asdict(outcome))


@task(cache_policy=NO_CACHE, persist_result=False)
def _work(turn: _Turn, stop: threading.Event, config: SweepConfig) -> State[Any] | None:
    log = get_run_logger()
    line = turn.line
    try:
        with _slot(config.slots, stop), _accelerators(config.accelerators, stop) as held:
            line.advance(turn.stages, log.info, held)
            if turn.is_last:
                line.end(log.info)
    except Pruned as why:
        # Not a failure: it was meant to be stopped.
        return Completed(name="Pruned", message=str(why))
    except Stopped:
        line.finish("KILLED")
        raise
    return None


@contextmanager
def _slot(limit: str | None, stop: threading.Event) -> Iterator[None]:
    """Within, a slot of Prefect's global concurrency limit is held."""
    with ExitStack() as stack:
        while limit:
            require_going_on(stop)
            try:
                stack.enter_context(
                    concurrency(
                        limit,
                        timeout_seconds=SLOT_SECONDS,
                        lease_duration=LEASE_SECONDS,
                        strict=True,
                        # A server that is away for a minute is no reason to lose hours.
                        raise_on_lease_renewal_failure=False,
                    )
                )
                break
            except TimeoutError:
                continue
        yield


@contextmanager
def _accelerators(choices: Sequence[str], stop: threading.Event) -> Iterator[Accelerators]:
    """Within, one of the choices is held, if there are any."""
    while choices:
        require_going_on(stop)
        with one_that_is_free(choices) as held:
            if held is not None:
                yield held
                return
        stop.wait(POLL_SECONDS)
    yield ANY
