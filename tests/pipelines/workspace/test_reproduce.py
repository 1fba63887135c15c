"""One stage through DVC: what its end means, and what the user is told."""

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from pipelines.workspace import reproduce as module
from pipelines.workspace.reproduce import StageFailed, reproduce, stage_environment
from pipelines.workspace.runner import Finished
from tests.pipelines.trivial_line import Line


def run(root: Path, stage: str, **options: Any) -> list[str]:
    lines: list[str] = []
    environment = stage_environment({}, [])
    given = {"environment": environment, "timeout_minutes": 1.0, "force": False} | options
    reproduce(stage, root, lines.append, **given)
    return lines


def test_only_the_stage_itself_runs_and_only_if_it_must(line: Line) -> None:
    assert "first begins" in run(line.root, "first")
    assert "second begins" in run(line.root, "second")
    assert "second begins" in run(line.root, "second", force=True)
    line.set(first="{value: other}")
    assert not any("begins" in text for text in run(line.root, "second"))  # --single-item


def test_a_users_mistake_is_told_in_the_stages_words(line: Line) -> None:
    line.set(first='{value: one, fail: "params.yaml: x must hold\\nparams.yaml: y too"}')
    with pytest.raises(StageFailed) as caught:
        run(line.root, "first")
    assert str(caught.value) == "first: params.yaml: x must hold\nparams.yaml: y too"
    assert not caught.value.worth_retrying
    assert caught.value.exit_status == 1


def test_a_crash_shows_the_last_lines(line: Line) -> None:
    line.set(first="{no_value: 1}")
    with pytest.raises(StageFailed, match=r"(?s)first: ended with .*KeyError: 'value'") as caught:
        run(line.root, "first")
    assert not caught.value.worth_retrying


def test_an_interrupted_stage_is_worth_another_try(line: Line) -> None:
    line.set(first="{value: one, fail_once: 75}")
    with pytest.raises(StageFailed) as caught:
        run(line.root, "first")
    assert caught.value.worth_retrying
    assert caught.value.exit_status == 75
    assert "first begins" in run(line.root, "first")


def test_a_timeout_is_not(line: Line) -> None:
    line.set(first="{value: one, sleep: 600}")
    with pytest.raises(StageFailed, match=r"first: stopped: it may take 0\.05 minutes") as caught:
        run(line.root, "first", timeout_minutes=0.05)
    assert not caught.value.worth_retrying


@pytest.mark.parametrize(
    ("status", "last_line", "worth"),
    [
        (255, "ERROR: failed to reproduce 'a': failed to run: x, exited with 75", True),
        (255, "ERROR: failed to reproduce 'a': failed to run: x, exited with 137", True),
        (255, "ERROR: failed to reproduce 'a': failed to run: x, exited with 143", True),
        (255, "ERROR: failed to reproduce 'a': failed to run: x, exited with -9", True),
        (255, "ERROR: failed to reproduce 'a': failed to run: x, exited with 1", False),
        (255, "ERROR: failed to reproduce 'a': failed to run: x, exited with 139", False),
        (255, "ERROR: Unable to acquire lock. Most likely another DVC process is running", True),
        (255, "ERROR: 'data/x' is busy, it is being blocked by:", True),
        (255, "ERROR: 'dvc.yaml' validation failed.", False),
        (-9, "Running stage 'a':", True),
    ],
)
def test_which_ends_are_worth_another_try(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, status: int, last_line: str, worth: bool
) -> None:
    monkeypatch.setattr(module, "run_command", lambda *a, **k: Finished(status, (last_line,)))
    with pytest.raises(StageFailed) as caught:
        run(tmp_path, "a")
    assert caught.value.worth_retrying is worth


def test_a_stage_whose_lock_was_lost_at_its_end_is_recorded_and_not_run_again(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Without waiting, DVC tries for three seconds; a patient one never meets this on its own.
    real = module.run_command

    def impatient(command: list[str], *arguments: Any, **options: Any) -> Finished:
        if "repro" in command:
            command = [word for word in command if word != "--wait-for-lock"]
        return real(command, *arguments, **options)

    monkeypatch.setattr(module, "run_command", impatient)
    taker = (
        "import sys, time, zc.lockfile; from pathlib import Path\n"
        "while not Path('data/runs/first.json').exists(): time.sleep(0.01)\n"
        "held = zc.lockfile.LockFile('.dvc/tmp/lock'); time.sleep(5)"
    )
    line.set(first="{value: one, linger: 1}")
    with subprocess.Popen([sys.executable, "-c", taker], cwd=line.root):
        said = run(line.root, "first")
    assert any("Unable to acquire lock" in text for text in said)
    assert "first: DVC lost its lock; recording what the stage has written" in said
    assert not any("begins" in text for text in run(line.root, "first"))


def test_the_environment_of_a_stage(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_RUN_ID", "somebody-elses")
    found = stage_environment({"A": "b"}, ["MLFLOW_RUN_ID"])
    assert found["A"] == "b"
    assert "MLFLOW_RUN_ID" not in found
    assert found["PATH"].split(os.pathsep)[0] == str(Path(sys.executable).parent)
