"""The benchmark counts what ran, works in copies, and holds ways against the first of a task."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks.orchestration.copies import Copy, make_copy, with_ten_stages
from benchmarks.orchestration.measure import Way, measure
from benchmarks.orchestration.report import markdown, write_report
from benchmarks.orchestration.ways import executions
from benchmarks.side_by_side.machine import describe_run
from pipelines.workspace.stage_graph import stage_order
from stages.core.sections import read_yaml


def test_executions_are_counted_in_dvcs_words() -> None:
    said = (
        "Running stage 'encode':\nStage 'prepare' is cached\n12:00 | x - Running stage 'encode':\n"
    )
    assert executions(said) == {"encode": 2}


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    return make_copy(tmp_path_factory.mktemp("copies") / "line", steps=0.02)


def test_a_copy_is_the_commit_with_other_steps(copy: Copy) -> None:
    params = read_yaml(copy.root / "params.yaml")
    assert params["train_prior"]["steps"] == 6 and params["train_prior"]["warmup_steps"] == 5
    changed = subprocess.run(
        ["git", "status", "--porcelain"], cwd=copy.root, capture_output=True, text=True
    )
    assert changed.stdout.split() == ["M", "params.yaml"]
    assert copy.run("stages.params").startswith("params.yaml: valid")
    with pytest.raises(RuntimeError, match="exit status 1"):
        copy.run("no_such_program")


def test_there_can_be_ten_stages(copy: Copy) -> None:
    with_ten_stages(copy)
    graph = stage_order(copy.root)
    assert len(graph) == 10 and graph["more_9"] == ["evaluate"]


def test_ways_take_turns_and_what_they_start_is_counted(copy: Copy) -> None:
    turns: list[str] = []

    def burning(name: str, times: int):
        def run(given: Copy) -> dict[str, int]:
            turns.append(name)
            subprocess.run([sys.executable, "-c", f"sum(range({times}))"], check=True)
            return {"encode": times // 10**6}

        return run

    ways = [
        Way("t", "short", burning("short", 10**6)),
        Way("t", "long", burning("long", 3 * 10**7)),
    ]
    short, long = measure(ways, lambda: copy, 2)
    assert turns == ["short", "long"] * 2
    assert long.processor > short.processor > 0 and len(long.wall_seconds) == 2
    assert long.executed == {"encode": 30}


def test_it_writes_what_it_measured(tmp_path: Path, copy: Copy) -> None:
    measured = measure(
        [Way("t", "bare", lambda c: {}), Way("t", "flow", lambda c: {"encode": 2, "x": 1})],
        lambda: copy,
        1,
    )
    measured[0].processor_seconds, measured[1].processor_seconds = [100.0], [115.0]
    run = describe_run("command", {"steps": 0.5}, ["prefect", "none of that name"])
    write_report(tmp_path, measured, run)
    lines = (tmp_path / "table.md").read_text().splitlines()
    assert lines[2].startswith("| t | bare | 100.00 |") and "| nothing |" in lines[2]
    assert "| 15.0 | 5.0% |" in lines[3] and lines[3].endswith("| encode 2, x |")
    assert markdown(measured[1:]).count("\n") == 3
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["settings"] == {"steps": 0.5} and about["cores"] >= 1
    assert list(about["packages"]) == ["prefect"]
    assert len((tmp_path / "table.csv").read_text().splitlines()) == 3
