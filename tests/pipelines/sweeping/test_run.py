"""What runs when: shared executions once and first, branches side by side, ends that spread."""

import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect import flow, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from pipelines.settings.line_config import SweepConfig
from pipelines.sweeping import accelerators
from pipelines.sweeping import run as sweep_run
from pipelines.sweeping.accelerators import Accelerators
from pipelines.sweeping.branch import SweepPlace
from pipelines.sweeping.plan import InvalidBranches, PlannedBranch
from pipelines.sweeping.pruning import Pruned
from pipelines.sweeping.results import BranchOutcome
from pipelines.sweeping.run import SweepRun
from pipelines.workspace.reproduce import StageFailed
from stages.core.errors import ParamsError

GRAPH: dict[str, list[str]] = {"first": [], "second": ["first"], "third": ["second"]}


@pytest.fixture(autouse=True)
def server(api_url: str) -> Iterator[None]:
    with temporary_settings({PREFECT_API_URL: api_url}):
        yield


class World:
    """Executes by noting it; a key that runs twice at once, or twice at all, is seen."""

    def __init__(self) -> None:
        self.executed: list[tuple[str, str]] = []
        self.ended: list[str] = []
        self.most_at_once = 0
        self.at_work_on: Counter[str] = Counter()
        self.most_on_one = 0
        self.trouble: dict[str, Exception] = {}
        self._at_work: set[str] = set()
        self._lock = threading.Lock()

    @contextmanager
    def seen_on(self, accelerators: str) -> Iterator[None]:
        with self._lock:
            self.at_work_on[accelerators] += 1
            self.most_on_one = max(self.most_on_one, self.at_work_on[accelerators])
        try:
            yield
        finally:
            with self._lock:
                self.at_work_on[accelerators] -= 1

    def execute(self, branch: str, key: str) -> None:
        with self._lock:
            if any(key == done for _, done in self.executed):
                return  # restored
            assert key not in self._at_work, "two branches run the same execution at once"
            self._at_work.add(key)
            self.most_at_once = max(self.most_at_once, len(self._at_work))
        time.sleep(0.05)
        with self._lock:
            self._at_work.discard(key)
            if key in self.trouble:
                raise self.trouble[key]
            self.executed.append((branch, key))


def make_line_type(world: World) -> type:
    class FakeLine:
        """Takes the place of `BranchLine`."""

        def __init__(self, place: SweepPlace, planned: PlannedBranch) -> None:
            self.planned, self.folder = planned, place.folder / planned.name
            self.at, self.seconds, self.run_id = "", 0.5, None
            self.figures: dict[str, float] = {}
            self.curve: dict[int, float] = {}
            self.asked = {"values": planned.values}
            self.is_there = True

        def advance(self, stages: list[str], log: Any, accelerators: Accelerators) -> None:
            self.folder.mkdir(parents=True, exist_ok=True)
            for self.at in stages:
                with world.seen_on(accelerators.names):
                    world.execute(self.planned.name, self.planned.keys[self.at])

        def end(self, log: Any) -> None:
            self.figures = {"loss": float(self.planned.values["x"])}

        def finish(self, status: str) -> None:
            world.ended.append(f"{self.planned.name} {status}")

        def group(self, stage: str) -> str:
            return "all"

    return FakeLine


def branch(number: int, **keys: str) -> PlannedBranch:
    keys = {"first": "f", "second": "s", "third": f"t{number}"} | keys
    return PlannedBranch(f"b{number}", {"x": number}, "", keys, f"x={number}")


class Search:
    """Asks for rounds of points and remembers what it is told."""

    def __init__(self, *rounds: list[int]) -> None:
        self._rounds = list(rounds)
        self.total = sum(map(len, rounds))
        self.told: list[tuple[int, str, float | None]] = []

    def ask(self) -> list[dict[str, int]]:
        return [{"x": number} for number in self._rounds.pop(0)] if self._rounds else []

    def tell(self, point: dict[str, int], state: str, objective: float | None, curve: Any) -> None:
        self.told.append((point["x"], state, objective))


def run(
    folder: Path,
    world: World,
    search: Search,
    monkeypatch: pytest.MonkeyPatch,
    branches: dict[int, PlannedBranch] | None = None,
    parallel: int = 2,
    **config: Any,
) -> dict[str, BranchOutcome]:
    planned = branches or {}

    def plan(points: list[dict[str, int]]) -> list[PlannedBranch]:
        if any(point["x"] < 0 for point in points):
            raise InvalidBranches("x must not be negative", {"bad": "must not be negative"})
        return [planned.get(point["x"], branch(point["x"])) for point in points]

    objective = SimpleNamespace(stage="third", figure="loss", direction="lower")
    sweep = SimpleNamespace(objective=objective, pruning=None)
    prepared: Any = SimpleNamespace(
        sweep=sweep, folder=folder, parallel=parallel, graph=GRAPH, branches=plan
    )
    place: Any = SimpleNamespace(
        folder=folder, sweep=sweep, curves=None, stop=threading.Event(), graph=GRAPH
    )
    monkeypatch.setattr(sweep_run, "BranchLine", make_line_type(world))
    monkeypatch.setattr(sweep_run, "open_search", lambda *given: search)
    given = SweepConfig(name="mine", retries=1, retry_delays_seconds=[0.01], **config)
    work = SweepRun(prepared, place, given, lambda line: None)
    flow(work.to_end, name="sweep")()
    return work.outcomes


def test_what_is_shared_runs_once_and_before_the_branches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, search = World(), Search([1, 2, 3, 4])
    outcomes = run(tmp_path, world, search, monkeypatch)
    assert world.executed[:2] == [("b1", "f"), ("b1", "s")]
    assert sorted(key for _, key in world.executed[2:]) == ["t1", "t2", "t3", "t4"]
    assert world.most_at_once == 2
    assert {each.state for each in outcomes.values()} == {"finished"}
    assert search.told == [(n, "finished", float(n)) for n in (1, 2, 3, 4)]
    # Again: nothing is left to do.
    again = World()
    assert run(tmp_path, again, Search([1, 2, 3, 4]), monkeypatch) == outcomes
    assert again.executed == []
    more = World()
    run(tmp_path, more, Search([1, 2, 3, 4, 5]), monkeypatch)
    assert {name for name, _ in more.executed} == {"b5"}


def test_a_failed_execution_takes_those_that_need_it_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, search = World(), Search([1, 2, 3, 4])
    branches = {n: branch(n, second=f"s{n // 3}") for n in (1, 2, 3, 4)}
    world.trouble["s0"] = StageFailed("second: diverged", exit_status=1, worth_retrying=False)
    world.trouble["t3"] = Pruned("above the median")
    outcomes = run(tmp_path, world, search, monkeypatch, branches)
    assert {name: (each.state, each.why) for name, each in outcomes.items()} == {
        "b1": ("failed", "second: diverged"),
        "b2": ("failed", "second: diverged"),
        "b3": ("pruned", "above the median"),
        "b4": ("finished", ""),
    }
    assert {"b1 FAILED", "b3 KILLED"} <= set(world.ended)
    # What failed is tried again, what was pruned or finished is not.
    again = World()
    states = run(tmp_path, again, Search([1, 2, 4]), monkeypatch, branches)
    assert {each.state for each in states.values()} == {"finished"}
    assert {name for name, _ in again.executed} == {"b1", "b2"}


def test_what_may_pass_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World()
    world.trouble["t1"] = StageFailed("third: killed", exit_status=75, worth_retrying=True)
    execute = world.execute

    def passing(name: str, key: str) -> None:
        try:
            execute(name, key)
        except StageFailed:
            del world.trouble[key]
            raise

    monkeypatch.setattr(world, "execute", passing)
    outcomes = run(tmp_path, world, Search([1]), monkeypatch)
    assert outcomes["b1"].state == "finished"


def test_rounds_and_points_that_are_not_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world, search = World(), Search([1, -2], [3])
    outcomes = run(tmp_path, world, search, monkeypatch)
    assert search.told == [(1, "finished", 1.0), (-2, "failed", None), (3, "finished", 3.0)]
    assert set(outcomes) == {"b1", "b3", "bad"}
    bad = outcomes["bad"]
    assert (bad.state, bad.values, bad.why) == ("failed", {"x": -2}, "must not be negative")
    assert not bad.is_valid and not (tmp_path / "bad").exists()


def test_a_wrong_objective_ends_the_sweep_at_the_first_branch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World()
    world.trouble["t1"] = ParamsError("objective.figure: must be one that third writes")
    with pytest.raises(ParamsError, match="objective"):
        run(tmp_path, world, Search([1, 2, 3, 4]), monkeypatch, parallel=1)
    assert len(world.executed) == 2
    assert world.ended == ["b1 FAILED"], "no record is left open"


def test_a_slot_of_prefects_limit_is_held_by_every_branch_at_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name("one-at-a-time", 1)
        world = World()
        run(tmp_path, world, Search([1, 2, 3]), monkeypatch, parallel=3, slots="one-at-a-time")
        assert world.most_at_once == 1
        found = client.read_global_concurrency_limit_by_name("one-at-a-time")
        assert found.active_slots == 0


def test_every_branch_at_work_has_accelerators_for_itself(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accelerators, "accelerator_folder", lambda: tmp_path / "held")
    world = World()
    run(tmp_path, world, Search([1, 2, 3, 4]), monkeypatch, parallel=4, accelerators=["0", "1,2"])
    assert set(world.at_work_on) == {"0", "1,2"}
    assert world.most_on_one == 1 and world.most_at_once == 2
    everywhere = World()
    run(tmp_path / "other", everywhere, Search([1, 2]), monkeypatch)
    assert set(everywhere.at_work_on) == {""}
