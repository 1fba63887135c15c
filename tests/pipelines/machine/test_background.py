"""What is ended later is exactly what was started: known by more than a process id."""

import json
import subprocess
import sys
import time
from dataclasses import asdict, replace
from pathlib import Path

import psutil

from pipelines.machine.background import Background, end_all
from pipelines.machine.servers import Server
from tests.pipelines.trivial_line import free_port

CHILD = "import time; time.sleep(600)"
# A leader whose child has a session of its own, as a worker's flow runs have.
LEADER = (
    "import subprocess, sys, time\n"
    f"subprocess.Popen([sys.executable, '-c', {CHILD!r}], start_new_session=True)\n"
    "print('ready', flush=True); time.sleep(600)"
)


def launch(root: Path) -> Background:
    background = Background(root, "thing")
    url = f"http://127.0.0.1:{free_port()}"
    log = root / "thing.log"
    background.launch(Server("thing", [sys.executable, "-c", LEADER], url, "", log))
    deadline = time.monotonic() + 100
    while "ready" not in log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return background


def lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE  # nobody may be there to reap it
    except psutil.NoSuchProcess:
        return False


def test_all_that_came_of_it_is_ended(tmp_path: Path) -> None:
    background = launch(tmp_path)
    family = background.family()
    assert len(family) == 2
    assert background.process() in family
    assert background.end() == 2
    assert not any(map(lives, family))
    assert background.note is None
    assert background.end() == 0


def test_a_child_that_has_outlived_it_is_found(tmp_path: Path) -> None:
    background = launch(tmp_path)
    leader = background.process()
    assert leader is not None
    leader.kill()
    while background.process() is not None:
        time.sleep(0.02)
    (child,) = background.family()
    assert child.pid != leader.pid
    assert background.end() == 1


def test_a_process_that_only_has_the_same_id_is_left_alone(tmp_path: Path) -> None:
    background = launch(tmp_path)
    note = background.note
    assert note is not None
    with subprocess.Popen([sys.executable, "-c", CHILD]) as stranger:
        path = tmp_path / ".work" / "servers" / "stranger.pid"
        path.write_text(json.dumps(asdict(replace(note, pid=stranger.pid, token="another"))))
        # The same id, another start: the one that the note speaks of was started earlier.
        found = json.loads(path.read_text())
        path.write_text(json.dumps(found | {"started": note.started - 60}))
        other = Background(tmp_path, "stranger")
        assert other.process() is None
        assert other.end() == 0
        assert stranger.poll() is None
        stranger.kill()
    background.end()


def test_what_does_not_listen_is_killed() -> None:
    deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); print(1, flush=True)\n" + CHILD
    process = subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.read(1)

    def living() -> list[psutil.Process]:
        return [psutil.Process(process.pid)] if process.poll() is None else []

    assert end_all(living, grace=0.2) == 1
    assert process.wait() == -9
    process.stdout.close()
