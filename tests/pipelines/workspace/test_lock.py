"""One writer per workspace, also across processes, also after a killed one."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from pipelines.workspace.lock import hold_workspace

HOLDER = """
import sys, time
from pathlib import Path
from pipelines.workspace.lock import hold_workspace
with hold_workspace(Path(sys.argv[1]), "run brave-fox", print):
    print("held", flush=True)
    time.sleep(float(sys.argv[2]))
"""


def holder(workspace: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(workspace), str(seconds)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_waits_and_says_for_whom(tmp_path: Path) -> None:
    said: list[str] = []
    with holder(tmp_path, 1.5) as process:
        with hold_workspace(tmp_path, "me", said.append):
            assert process.wait() == 0
    assert len(said) == 1
    assert "run brave-fox" in said[0]
    assert str(process.pid) in said[0]


def test_without_another_run_there_is_no_wait(tmp_path: Path) -> None:
    said: list[str] = []
    for _ in range(2):
        with hold_workspace(tmp_path, "me", said.append):
            pass
    assert said == []


def test_a_killed_holder_lets_go(tmp_path: Path) -> None:
    with holder(tmp_path, 600) as process:
        process.kill()
        process.wait()
        start = time.monotonic()
        with hold_workspace(tmp_path, "me", print):
            assert time.monotonic() - start < 5


def test_a_subprocess_that_inherits_the_lock_keeps_it_for_a_killed_holder(tmp_path: Path) -> None:
    with hold_workspace(tmp_path, "me", print) as descriptor:
        heir = subprocess.Popen(["sleep", "600"], pass_fds=[descriptor])
    try:
        said: list[str] = []

        def end_heir(line: str) -> None:
            said.append(line)
            os.kill(heir.pid, signal.SIGKILL)
            heir.wait()

        with hold_workspace(tmp_path, "next", end_heir):
            assert len(said) == 1
    finally:
        heir.kill()
        heir.wait()
