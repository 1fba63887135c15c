"""The benchmark measures what it says, and writes it."""

import json

import pytest
import torch
from scipy.linalg import sqrtm

from benchmarks.distances.__main__ import main
from benchmarks.distances.measure import Task, measure
from benchmarks.distances.problem import make_roots
from benchmarks.distances.tasks import frechet_task, kernel_task, root_task


def test_the_trace_is_that_of_a_general_root() -> None:
    given = make_roots(9, seed=1)
    root = sqrtm((given.first @ given.second).numpy())
    assert given.trace == pytest.approx(root.trace().real, rel=1e-7)
    assert not torch.allclose(given.first @ given.second, given.second @ given.first)


def test_all_ways_agree() -> None:
    for timed in measure(root_task(12, seed=1), rounds := 2):
        assert timed.value == pytest.approx(timed.task.exact, rel=1e-6)
        assert len(timed.wall_seconds) == rounds
    for task in (frechet_task(12, 40, seed=1), frechet_task(12, 8, seed=1)):
        ours, theirs = measure(task, 1)
        assert ours.value == pytest.approx(theirs.value, rel=1e-4)
    ours, double, single = measure(kernel_task(12, 30, seed=1), 1)
    assert ours.value == pytest.approx(double.value, rel=1e-9)
    assert ours.value == pytest.approx(single.value, rel=1e-3)


def test_ways_take_turns() -> None:
    calls = []
    ways = {name: lambda name=name: calls.append(name) or 1.0 for name in ("a", "b")}
    measure(Task("made up", 1, None, ways, None), 3)
    assert calls == ["a", "b"] * 3


def test_it_writes_what_it_measured(tmp_path, capsys) -> None:
    threads = torch.get_num_threads()
    main(["--dims", "6", "--rounds", "1", "--threads", str(threads), "--output", str(tmp_path)])
    rows = (tmp_path / "table.csv").read_text().splitlines()
    assert len(rows) == 1 + 4 + 2 + 3
    assert "torchmetrics" in capsys.readouterr().out
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["threads"] == threads and about["packages"]["torchmetrics"]
