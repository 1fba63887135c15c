"""Who is who among processes, and what is said when they do not fit together."""

import json
import os
import subprocess
import sys

import pytest

from stages.core.errors import (
    EXIT_INTERRUPTED,
    DataError,
    Interrupted,
    LatentlineError,
    ParamsError,
)
from stages.core.launch import _raise_reason, leave_reason, node_rank
from stages.core.ranks import (
    LAUNCHER,
    ComputeOptions,
    agree,
    barrier,
    from_first,
    is_first_process,
    joined,
    was_started_by_launcher,
    world,
)
from tests.processes import in_processes


def compute(processes=1, hosts=1):
    return ComputeOptions(processes=processes, hosts=hosts, prior_strategy="ddp")


def test_alone_one_is_first_and_waits_for_nobody():
    assert is_first_process() and not was_started_by_launcher()
    assert world() == (0, 1) and from_first("mine") == "mine"
    barrier()
    agree("anything", "it")


def test_several_hosts_must_know_where_to_meet(monkeypatch):
    for name in ("MASTER_ADDR", "MASTER_PORT", "NODE_RANK"):
        monkeypatch.delenv(name, raising=False)
    assert node_rank(compute(4)) == 0
    with pytest.raises(ParamsError, match="2 hosts must know where to meet.*NODE_RANK not set"):
        node_rank(compute(4, hosts=2))
    for name, value in (("MASTER_ADDR", "10.0.0.1"), ("MASTER_PORT", "1"), ("NODE_RANK", "1")):
        monkeypatch.setenv(name, value)
    assert node_rank(compute(4, hosts=2)) == 1


def test_as_many_processes_must_be_started_as_the_parameters_ask_for(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ParamsError, match=r"number of processes that were started, 3; got 2 \* 2"):
        with joined(compute(2, hosts=2), "cpu"):
            raise AssertionError("they never meet")


def _compare():
    rank, size = world()
    agree("the same", "this")
    try:
        agree(f"key {rank}", "the name of the work")
    except ParamsError as error:
        return size, from_first(rank), str(error)


def test_processes_say_where_they_differ():
    outcomes = in_processes(2, _compare)
    assert outcomes[0] == outcomes[1]
    size, first, message = outcomes[0]
    assert (size, first) == (2, 0)
    assert "rank 0 has 'key 0' and rank 1 has 'key 1'" in message


class Failure:
    """What the launcher tells of a process."""

    def __init__(self, exitcode, reason=None):
        self.exitcode = exitcode
        self.error_file_data = {} if reason is None else json.loads(reason.read_text())
        self.timestamp = 0

    def signal_name(self):
        return "SIGKILL"


class Failures:
    """All that failed."""

    def __init__(self, *failures):
        self.failures = dict(enumerate(failures))

    def get_first_failure(self):
        return 0, self.failures[0]


def reason(monkeypatch, path, error):
    monkeypatch.setenv("TORCHELASTIC_ERROR_FILE", str(path))
    leave_reason(error)
    return path


def test_of_several_failures_the_one_that_says_most_is_told(monkeypatch, tmp_path, capsys):
    broken = Failure(1, reason(monkeypatch, tmp_path / "a", RuntimeError("Connection closed")))
    mistake = Failure(1, reason(monkeypatch, tmp_path / "b", DataError("no images there")))
    with pytest.raises(LatentlineError, match="no images there"):
        _raise_reason("encode", Failures(broken, mistake))
    with pytest.raises(Interrupted, match=r"rank 1 was lost \(SIGKILL\)"):
        _raise_reason("encode", Failures(broken, Failure(-9)))
    with pytest.raises(Interrupted, match="stopped on request"):
        _raise_reason("encode", Failures(broken, mistake, Failure(75)))
    with pytest.raises(RuntimeError, match="rank 0 failed with exit status 1"):
        _raise_reason("encode", Failures(broken, broken))
    assert capsys.readouterr().err.startswith("rank 0:")


def test_a_process_whose_launcher_was_gone_at_its_start_does_not_wait_for_the_others():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    waits = (
        "from stages.core.ranks import ComputeOptions, joined\n"
        "options = ComputeOptions(processes=2, hosts=1, prior_strategy='ddp')\n"
        "with joined(options, 'cpu'): pass"
    )
    meeting = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1", "WORLD_SIZE": "2", "RANK": "1"}
    environment = {**os.environ, **meeting, LAUNCHER: str(gone.pid)}
    ended = subprocess.run([sys.executable, "-c", waits], env=environment, timeout=200)
    assert ended.returncode == EXIT_INTERRUPTED
