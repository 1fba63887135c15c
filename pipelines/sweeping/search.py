"""Which points a sweep looks at: all of a grid, some at random, or those Optuna asks for.

    ask() -> points to look at now, none when the search is over;   tell(point, ...) -> how it went

Grid and random ask for all at once. Optuna learns from what it was told, so it asks for as many as
run side by side, again and again; its study is a SQLite file, from which a sweep goes on when it is
run again. The points that the file has come first: those that are done are in the table of the new
run too, those that were under way or have failed are tried again.
"""

import itertools
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from pipelines.sweeping.file import Range, Sweep
from stages.core.errors import LatentlineError, ParamsError

if TYPE_CHECKING:
    from optuna import Study
    from optuna.trial import Trial

__all__ = ["Point", "PointSearch", "open_search", "probes"]

Point = dict[str, Any]
"""Dotted name -> value."""
TRIES = 100
"""Draws for each branch until it must be one that is not there yet."""
SIGNIFICANT = 4
"""Digits of a number drawn at random: more say nothing and nobody can read them."""


class PointSearch(ABC):
    """Chooses points."""

    total: int
    """How many there will be."""

    @abstractmethod
    def ask(self) -> list[Point]:
        """The next points; none when the search is over."""

    @abstractmethod
    def tell(
        self, point: Point, state: str, objective: float | None, curve: Mapping[int, float]
    ) -> None:
        """Say what came of a point.

        Args:
            point: One that was asked for.
            state: `finished`, `pruned` or `failed`.
            objective: Of a finished one.
            curve: Step -> validation figure of a pruned one.
        """


def open_search(sweep: Sweep, folder: Path, parallel: int) -> PointSearch:
    """The search a sweep asks for.

    Args:
        sweep: Which.
        folder: Of its state.
        parallel: Branches side by side.

    Raises:
        ParamsError: If there are not as many different points as it asks for.
        LatentlineError: If Optuna is not installed.
    """
    if sweep.search.kind == "optuna":
        return _Optuna(sweep, folder, parallel)
    return _AllAtOnce(_grid(sweep) if sweep.search.kind == "grid" else _random(sweep))


def probes(sweep: Sweep) -> list[Point]:
    """One point for each end of a range and each value of a list, the other axes at their first.

    A search that asks bit by bit can be checked beforehand at least with these.
    """
    ends = {
        name: [_number(axis, axis.low), _number(axis, axis.high)]
        if isinstance(axis, Range)
        else axis
        for name, axis in sweep.over.items()
    }
    first = {name: values[0] for name, values in ends.items()}
    found = [first | {name: value} for name, values in ends.items() for value in values]
    return [point for number, point in enumerate(found) if point not in found[:number]]


@final
class _AllAtOnce(PointSearch):
    def __init__(self, points: list[Point]) -> None:
        self._points = points
        self.total = len(points)

    def ask(self) -> list[Point]:
        asked, self._points = self._points, []
        return asked

    def tell(
        self, point: Point, state: str, objective: float | None, curve: Mapping[int, float]
    ) -> None:
        pass


def _grid(sweep: Sweep) -> list[Point]:
    axes = [values for values in sweep.over.values() if isinstance(values, list)]
    return [dict(zip(sweep.over, values, strict=True)) for values in itertools.product(*axes)]


def _random(sweep: Sweep) -> list[Point]:
    # Here, because with it comes torch, which takes seconds.
    from stages.core.randomness import numpy_stream

    count, seed = sweep.search.count, sweep.search.seed
    assert count is not None and seed is not None
    stream = numpy_stream(seed, "sweep")
    points: list[Point] = []
    for _ in range(TRIES * count):
        if len(points) == count:
            return points
        point = {}
        for name, axis in sweep.over.items():
            if not isinstance(axis, Range):
                point[name] = axis[int(stream.integers(len(axis)))]
            elif axis.scale == "log":
                ratio = axis.high / axis.low
                point[name] = _readable(axis.low * ratio ** float(stream.random()))
            elif axis.scale == "integer":
                point[name] = int(stream.integers(int(axis.low), int(axis.high) + 1))
            else:
                span = axis.high - axis.low
                point[name] = _readable(axis.low + span * float(stream.random()))
        if point not in points:
            points.append(point)
    raise ParamsError(
        f"sweep: search.count must not exceed the different points of `over`; got {count}, found "
        f"{len(points)}"
    )


def _readable(value: float) -> float:
    return float(f"{value:.{SIGNIFICANT}g}")


def _number(axis: Range, value: float) -> int | float:
    return int(value) if axis.scale == "integer" else value


@final
class _Optuna(PointSearch):
    def __init__(self, sweep: Sweep, folder: Path, parallel: int) -> None:
        assert sweep.search.count is not None and sweep.search.seed is not None
        self._sweep, self._parallel, self.total = sweep, parallel, sweep.search.count
        self._trials: dict[str, Trial] = {}
        self._study = _study(sweep, folder)
        self._has_asked = False

    def ask(self) -> list[Point]:
        from optuna.trial import Trial, TrialState

        known = self._study.get_trials(deepcopy=False)
        # Only this process works on the study: what runs was begun by one that was killed.
        open_trials = [
            Trial(self._study, trial._trial_id)
            for trial in known
            if trial.state == TrialState.RUNNING
        ]
        # Without them a run that goes on would tell of its own branches only.
        ended = [] if self._has_asked else [each for each in known if each.state.is_finished()]
        self._has_asked = True
        room = 0 if open_trials or ended else min(self._parallel, self.total - len(known))
        asked = open_trials or [self._study.ask() for _ in range(max(room, 0))]
        axes = self._sweep.over
        points = [
            {name: _value(axis, trial.params[name]) for name, axis in axes.items()}
            for trial in ended
        ]
        for trial in asked:
            point = {name: _suggest(trial, name, axis) for name, axis in axes.items()}
            self._trials[_name(point)] = trial
            points.append(point)
        return points

    def tell(
        self, point: Point, state: str, objective: float | None, curve: Mapping[int, float]
    ) -> None:
        from optuna.trial import TrialState

        trial = self._trials.get(_name(point))
        if trial is None:
            return  # of a run before, in which the study was told
        if state == "pruned":
            for step, value in curve.items():
                trial.report(value, step)
        states = {
            "finished": TrialState.COMPLETE,
            "pruned": TrialState.PRUNED,
            "failed": TrialState.FAIL,
        }
        value = objective if state == "finished" else None
        self._study.tell(trial, value, states[state], skip_if_finished=True)


def _name(point: Point) -> str:
    return json.dumps(point, sort_keys=True)


def _study(sweep: Sweep, folder: Path) -> "Study":
    try:
        import optuna
    except ModuleNotFoundError:
        raise LatentlineError(
            "search.kind: optuna needs the package optuna; install it (pip install "
            "'latentline[sweep]') or choose grid or random"
        ) from None
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    folder.mkdir(parents=True, exist_ok=True)
    asked = sweep.model_dump(mode="json", include={"objective", "search", "over", "preset"})
    # Another question is another study; its points would be no points of this one.
    asked["search"].pop("count")
    name = _name(asked)
    study = optuna.create_study(
        storage=f"sqlite:///{folder / 'optuna.db'}",
        study_name=name,
        direction="minimize" if sweep.objective.direction == "lower" else "maximize",
        load_if_exists=True,
    )
    # What was drawn is not drawn again after a restart.
    seed = (sweep.search.seed or 0) + len(study.get_trials(deepcopy=False))
    # Its generator takes 32 bits.
    study.sampler = optuna.samplers.TPESampler(seed=seed % 2**32)
    return study


def _suggest(trial: "Trial", name: str, axis: list[Any] | Range) -> Any:
    if isinstance(axis, list):
        # Optuna takes words and numbers only; a section or a list of numbers becomes a word.
        words = [json.dumps(value) for value in axis]
        return _value(axis, trial.suggest_categorical(name, words))
    if axis.scale == "integer":
        return trial.suggest_int(name, int(axis.low), int(axis.high))
    return trial.suggest_float(name, axis.low, axis.high, log=axis.scale == "log")


def _value(axis: list[Any] | Range, of_optuna: Any) -> Any:
    return json.loads(of_optuna) if isinstance(axis, list) else of_optuna
