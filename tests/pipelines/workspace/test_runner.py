"""The runner: every line while it comes, and no process left whatever ends the wait."""

import os
import signal
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pipelines.workspace import runner
from pipelines.workspace.runner import CommandTimeout, Finished, end_session, run_command
from tests.pipelines.trivial_line import MARK, living


def run(program: str, mark: str, on_line: Callable[[str], None], **options: Any) -> Finished:
    """Run a Python program whose processes can all be found again by `mark`."""
    environment = {**os.environ, MARK: mark, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, "-c", textwrap.dedent(program)]
    return run_command(command, on_line, cwd=Path.cwd(), env=environment, **options)


def test_status_and_last_lines(mark: str) -> None:
    lines: list[str] = []
    done = run(
        "import sys; print('out'); print('err', file=sys.stderr); sys.exit(7)", mark, lines.append
    )
    assert done == Finished(7, ("out", "err"))
    assert lines == ["out", "err"]


def test_status_of_a_killed_command(mark: str) -> None:
    done = run("import os; os.kill(os.getpid(), 9)", mark, lambda line: None)
    assert done.status == -signal.SIGKILL


def test_lines_come_while_the_command_runs(mark: str) -> None:
    arrived: dict[str, float] = {}
    run(
        "import time; print('first'); time.sleep(1.0); print('second')",
        mark,
        lambda line: arrived.setdefault(line, time.monotonic()),
    )
    assert arrived["second"] - arrived["first"] > 0.5


def test_of_a_progress_bar_only_the_last_drawing_is_a_line(mark: str) -> None:
    lines: list[str] = []
    run(
        r"""
        import sys, time
        for percent in range(0, 101, 20):
            sys.stdout.write(f"\r{percent}%"); sys.stdout.flush(); time.sleep(0.02)
        sys.stdout.write("\ndone\r\nno end")
        """,
        mark,
        lines.append,
    )
    assert lines == ["100%", "done", "no end"]


def test_characters_split_between_reads_stay_whole(mark: str) -> None:
    lines: list[str] = []
    run(
        r"""
        import sys, time
        for byte in "ε\n".encode():
            sys.stdout.buffer.write(bytes([byte])); sys.stdout.buffer.flush(); time.sleep(0.05)
        """,
        mark,
        lines.append,
    )
    assert lines == ["ε"]


def test_timeout_ends_a_child_that_ignores_sigterm_and_its_children(mark: str) -> None:
    program = """
        import signal, subprocess, sys, time
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
        time.sleep(600)
    """
    start = time.monotonic()
    with pytest.raises(CommandTimeout, match=r"1\.5 s"):
        run(program, mark, lambda line: None, timeout=1.5, grace=0.5)
    assert time.monotonic() - start < 10
    assert living(mark) == []


SAVES_AND_ENDS = """
    import signal, sys, time
    def save(number, frame):
        print("saved"); sys.exit(75)
    signal.signal(signal.SIGTERM, save)
    print("ready")
    time.sleep(600)
"""


def test_sigterm_comes_before_sigkill_and_the_last_words_are_heard(mark: str) -> None:
    lines: list[str] = []
    with pytest.raises(CommandTimeout):
        run(SAVES_AND_ENDS, mark, lines.append, timeout=2.0, grace=60)
    assert lines == ["ready", "saved"]


def test_the_last_words_are_heard_when_it_ends_unwatched(
    mark: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def end_unheard(process: Any, *, grace: float, meanwhile: Any) -> None:
        end_session(process, grace=grace)

    monkeypatch.setattr(runner, "end_session", end_unheard)
    lines: list[str] = []
    with pytest.raises(CommandTimeout):
        run(SAVES_AND_ENDS, mark, lines.append, timeout=2.0, grace=60)
    assert lines == ["ready", "saved"]


def test_descendants_that_outlive_the_leader_are_ended(mark: str) -> None:
    program = """
        import subprocess, sys
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    """
    start = time.monotonic()
    assert run(program, mark, lambda line: None).status == 0
    assert time.monotonic() - start < 10  # the lingerer holds the pipe open: no wait for its end
    assert living(mark) == []


def test_a_descendant_in_its_own_session_is_ended_with_the_leader(mark: str) -> None:
    program = """
        import subprocess, sys, time
        sleeper = [sys.executable, "-c", "import time; time.sleep(600)"]
        subprocess.Popen(sleeper, start_new_session=True)
        time.sleep(600)
    """
    with pytest.raises(CommandTimeout):
        run(program, mark, lambda line: None, timeout=1.5, grace=1)
    assert living(mark) == []


class Cancelled(BaseException):
    """As Prefect's TerminationSignal: no Exception, raised by a signal handler."""


def test_an_exception_of_a_signal_handler_ends_everything_and_goes_on(mark: str) -> None:
    def cancel(number: int, frame: object) -> None:
        raise Cancelled

    previous = signal.signal(signal.SIGUSR1, cancel)
    timer = threading.Timer(1.0, os.kill, (os.getpid(), signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(Cancelled):
            run("import time; print('x'); time.sleep(600)", mark, lambda line: None, grace=1)
    finally:
        timer.cancel()
        signal.signal(signal.SIGUSR1, previous)
    assert living(mark) == []


def test_an_error_of_the_callback_ends_everything_and_goes_on(mark: str) -> None:
    def fail(line: str) -> None:
        raise RuntimeError("log handler is gone")

    with pytest.raises(RuntimeError, match="log handler"):
        run("import time; print('x'); time.sleep(600)", mark, fail, grace=1)
    assert living(mark) == []


def test_the_command_can_be_interrupted_though_the_parent_ignores_sigint(mark: str) -> None:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        lines: list[str] = []
        run("import signal; print(signal.getsignal(signal.SIGINT))", mark, lines.append)
    finally:
        signal.signal(signal.SIGINT, previous)
    assert "default_int_handler" in lines[0]


def test_who_watches_may_end_it(mark: str) -> None:
    looks: list[float] = []

    def watch() -> None:
        looks.append(time.monotonic())
        if len(looks) == 3:
            raise ValueError("enough")

    with pytest.raises(ValueError, match="enough"):
        run("import time; time.sleep(600)", mark, lambda line: None, watch=watch)
    assert living(mark) == []
