"""What a killed DVC leaves is mended; what a living one holds is left alone."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.workspace.dvc_locks import mend_dvc
from tests.pipelines.trivial_line import Line
from tests.pipelines.workspace.test_reproduce import run


def rwlock(root: Path, text: str) -> Path:
    path = root / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


@pytest.mark.parametrize("text", ["", '{"write": {"/a', '{"write": 3}', '{"write": {"/a": {}}}'])
def test_a_torn_file_goes(tmp_path: Path, text: str) -> None:
    path = rwlock(tmp_path, text)
    said: list[str] = []
    assert mend_dvc(tmp_path, said.append)
    assert not path.exists() and "half-written" in said[0]


def test_entries_of_strangers_go_and_those_of_dvc_stay(tmp_path: Path) -> None:
    code = "import time; time.sleep(600)"
    dvc = subprocess.Popen([sys.executable, "-c", code, "dvc", "repro"])
    try:
        stranger, living = {"pid": os.getpid(), "cmd": "dvc"}, {"pid": dvc.pid, "cmd": "dvc"}
        held = {"write": {"/a": stranger, "/b": living}, "read": {"/c": [stranger]}}
        path = rwlock(tmp_path, json.dumps(held))
        # The tests are run by a python whose command line may hold the word too.
        if "dvc" not in " ".join(sys.orig_argv):
            assert mend_dvc(tmp_path, print)
            assert json.loads(path.read_text()) == {"write": {"/b": living}, "read": {}}
        assert not mend_dvc(tmp_path, print)
    finally:
        dvc.kill()
        dvc.wait()


def test_nothing_to_mend(tmp_path: Path) -> None:
    assert not mend_dvc(tmp_path, print)
    (tmp_path / "dvc.lock").write_text(
        "schema: '2.0'\nstages:\n  first:\n    cmd: x\n    outs:\n    - path: a\n      md5: b\n"
    )
    assert not mend_dvc(tmp_path, print)


def test_a_run_goes_on_after_a_torn_lock_of_dvc(line: Line) -> None:
    rwlock(line.root, '{"write": {"/da')
    said = run(line.root, "first")
    assert any("half-written" in text for text in said) and "first begins" in said
    lock = line.root / "dvc.lock"
    lock.write_text(lock.read_text() + "  second: [\n")
    said = run(line.root, "first")
    assert any("damaged, kept as" in text for text in said) and "first begins" not in said
    assert lock.read_text().startswith("schema")
