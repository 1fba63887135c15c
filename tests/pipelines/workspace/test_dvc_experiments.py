"""Branches become experiments of the project, also where the project's own results are nowhere."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from pipelines.workspace.branches import make_branch
from pipelines.workspace.dvc_experiments import save_experiment
from tests.pipelines.trivial_line import QUIET, Line


def run(root: Path, *command: str) -> str:
    done = subprocess.run(
        command, cwd=root, env={**os.environ, **QUIET}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_fresh_clone_has_a_lock_and_no_cache(line: Line, tmp_path: Path) -> None:
    dvc = (sys.executable, "-m", "dvc")
    with (line.root / "dvc.yaml").open("a") as described:
        described.write("metrics: [data/metrics/figures.json]\nplots: [data/third/value.txt]\n")
    line.record()
    shutil.rmtree(line.root / ".dvc" / "cache")
    shutil.rmtree(line.root / "data")
    line.set(first="{value: another}")
    branch = make_branch(
        line.root, tmp_path / "branch", (line.root / "params.yaml").read_text(), "an experiment"
    )
    branch.python("dvc", "repro", "--quiet", "first", log=print, tracked=False)
    save_experiment(branch, "one", ["first"], print)
    assert "one" in run(line.root, *dvc, "exp", "list")
    shown = run(line.root, *dvc, "exp", "show", "--csv", "--no-pager")
    assert "another" in shown
