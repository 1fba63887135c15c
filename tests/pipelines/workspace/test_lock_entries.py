"""A stage that two branches share runs once, also where dvc.lock came from another machine."""

import shutil
from pathlib import Path

from pipelines.workspace.branches import Branch, make_branch
from pipelines.workspace.lock_entries import keep_entries
from tests.pipelines.trivial_line import Line


def branch(line: Line, name: str) -> Branch:
    params = (line.root / "params.yaml").read_text()
    return make_branch(line.root, line.root / ".work" / name, params, "an experiment")


def lines_of(branch: Branch) -> list[str]:
    said: list[str] = []
    branch.python("dvc", "repro", "first", log=said.append, tracked=False)
    return said


def test_a_stage_that_two_branches_share_runs_once_in_a_fresh_clone(line: Line) -> None:
    line.record()
    shutil.rmtree(line.root / ".dvc" / "cache")
    shutil.rmtree(line.root / "data")
    one, other = branch(line, "one"), branch(line, "other")
    assert "first begins" in lines_of(one)
    said = lines_of(other)
    assert any("'first' is cached - skipping run" in each for each in said), said
    assert "first begins" not in said


def test_results_that_were_pulled_need_no_run(line: Line) -> None:
    line.record()
    # `dvc pull` brings outputs, not the run cache.
    shutil.rmtree(line.root / ".dvc" / "cache" / "runs")
    shutil.rmtree(line.root / "data")
    assert "first begins" not in lines_of(branch(line, "one"))


def test_a_lock_of_which_all_stays_is_left_alone(tmp_path: Path) -> None:
    lock = tmp_path / "dvc.lock"
    keep_entries(lock, lambda stage, entry: True)
    assert not lock.exists()
    text = "schema: '2.0'\nstages:\n  a: {cmd: x}\n  b: {cmd: y}\n"
    lock.write_text(text)
    keep_entries(lock, lambda stage, entry: True)
    assert lock.read_text() == text
    keep_entries(lock, lambda stage, entry: entry["cmd"] == "y")
    assert lock.read_text() == "schema: '2.0'\nstages:\n  b: {cmd: y}\n"
