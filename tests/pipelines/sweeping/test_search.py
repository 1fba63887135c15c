"""Points: all of a grid, distinct random ones, and Optuna's, which go on after a kill."""

import sys

import pytest

from pipelines.sweeping.file import Sweep
from pipelines.sweeping.search import open_search, probes
from stages.core.errors import LatentlineError, ParamsError
from stages.core.sections import validate
from stages.core.seeds import LARGEST_SEED
from tests.pipelines.sweeping.test_file import GRID

RANGES = {
    "a": {"low": 1e-4, "high": 1e-2, "scale": "log"},
    "b": {"low": 1, "high": 3, "scale": "integer"},
    "c": [{"kind": "x"}, {"kind": "y"}],
}


def sweep(**change):
    return validate(Sweep, GRID | change, source="a sweep")


def searching(kind, count, **change):
    search = {"kind": kind, "count": count, "seed": 0}
    return sweep(search=search, over=RANGES, **change)


def test_a_grid_is_every_combination(tmp_path):
    search = open_search(sweep(over={"a": [1, 2], "b": ["x", [3]]}), tmp_path, 1)
    assert search.total == 4
    assert search.ask() == [
        {"a": 1, "b": "x"},
        {"a": 1, "b": [3]},
        {"a": 2, "b": "x"},
        {"a": 2, "b": [3]},
    ]
    assert search.ask() == []


def test_random_points_are_distinct_lie_in_their_ranges_and_come_again(tmp_path):
    points = open_search(searching("random", 40), tmp_path, 1).ask()
    assert len(points) == 40
    assert all(points.count(point) == 1 for point in points)
    assert all(
        1e-4 <= p["a"] <= 1e-2 and p["b"] in (1, 2, 3) and p["c"] in RANGES["c"] for p in points
    )
    assert 10 <= sum(p["a"] < 1e-3 for p in points) <= 30, "half of a log range is below its middle"
    assert open_search(searching("random", 40), tmp_path, 1).ask() == points
    few = {"kind": "random", "count": 5, "seed": 0}
    with pytest.raises(ParamsError, match="got 5, found 4"):
        open_search(sweep(search=few, over={"a": [1, 2], "b": [1, 2]}), tmp_path, 1)


def test_probes_touch_every_end_once():
    found = probes(searching("optuna", 5))
    assert {point["a"] for point in found} == {1e-4, 1e-2}
    assert {point["b"] for point in found} == {1, 3}
    assert [point["c"]["kind"] for point in found].count("y") == 1
    assert len(found) == 4


def test_optuna_asks_as_many_as_run_side_by_side_and_goes_on_after_a_kill(tmp_path):
    asked = searching("optuna", 5)
    search = open_search(asked, tmp_path, 2)
    first = search.ask()
    assert len(first) == 2 and set(first[0]) == {"a", "b", "c"} and first[0]["c"] in RANGES["c"]
    search.tell(first[0], "finished", 3.0, {})
    # Killed here: the other point was under way and comes again.
    search = open_search(asked, tmp_path, 2)
    assert search.ask() == first, "what is done too, or the table would not have it"
    search.tell(first[0], "finished", 3.0, {})
    search.tell(first[1], "pruned", None, {10: 4.0, 20: 3.5})
    seen = list(first)
    while points := search.ask():
        for number, point in enumerate(points):
            search.tell(point, ("failed", "finished")[number], 2.0, {})
        seen += points
    assert len(seen) == search.total == 5
    import optuna

    [study] = optuna.get_all_study_summaries(f"sqlite:///{tmp_path / 'optuna.db'}")
    trials = optuna.load_study(
        study_name=study.study_name, storage=f"sqlite:///{tmp_path / 'optuna.db'}"
    ).trials
    states = [trial.state.name for trial in trials]
    assert states == ["COMPLETE", "PRUNED", "FAIL", "COMPLETE", "FAIL"]
    assert trials[1].intermediate_values == {10: 4.0, 20: 3.5}
    # Run again it is looked at again, and nothing new is asked for.
    again = open_search(asked, tmp_path, 2)
    points = again.ask()
    assert points == seen
    for point in points:
        again.tell(point, "finished", 9.0, {})
    assert again.ask() == []
    # More of the same is the same study; another question is another.
    more = open_search(searching("optuna", 6), tmp_path, 2)
    assert more.ask() == seen and len(more.ask()) == 1
    objective = asked.objective.model_dump() | {"direction": "higher"}
    assert len(open_search(searching("optuna", 6, objective=objective), tmp_path, 2).ask()) == 2


def test_every_seed_is_one_of_optunas(tmp_path):
    pytest.importorskip("optuna")
    search = {"kind": "optuna", "count": 5, "seed": LARGEST_SEED}
    assert len(open_search(sweep(search=search, over=RANGES), tmp_path, 2).ask()) == 2


def test_without_optuna_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(LatentlineError, match=r"latentline\[sweep\]"):
        open_search(searching("optuna", 5), tmp_path, 2)
