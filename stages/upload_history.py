"""Deliver the journals of stages to MLflow: `python -m stages.upload_history`.

While a stage runs, a process of this program follows its journal (`--follow`). When that process
could not deliver everything - no network, a server that was down - the journal stays. The next
stage that reaches the same store delivers it too, if that does not take long, and so does this
program, run by hand without arguments, into the run that was begun or a new one. It may be run any
time and any number of times.
"""

import argparse
import fcntl
import os
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, final

from stages.core.delivery import Delivery
from stages.core.journal import (
    DamagedJournal,
    journal_ended,
    journal_folders,
    project_root,
    read_opening,
    set_aside,
)
from stages.core.provenance import writer_lives
from stages.core.store import reason

if TYPE_CHECKING:
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

__all__ = ["deliver_left_journals", "follow", "main"]

LOOK_SECONDS = 0.1
"""Between two looks at a journal that grows."""
SEND_SECONDS = 1.0
"""Between two deliveries, so that numbers go in batches."""
FIRST_PAUSE, LONGEST_PAUSE = 5.0, 60.0
"""After a store did not answer; doubled each time."""
ORPHAN_SECONDS = 60
"""Longest life of a follower after its stage died."""
LEFT_SECONDS = 15.0
"""How long those that earlier stages have left may still begin to be delivered after the end."""
SYSTEM_SECONDS = 10.0
"""Between two samples of processor, memory, disk, network and accelerators."""


@contextmanager
def _held(folder: Path) -> Iterator[bool]:
    """Whether this process alone delivers the journal, and for as long as that."""
    with (folder / "lock").open("a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True


def follow(folder: Path, stage_process: int) -> bool:
    """Deliver a journal while the parent process writes it; True when all has arrived.

    Args:
        folder: The journal.
        stage_process: The parent, as it said itself: it may be dead before this one looks.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        # The stage is told to stop by the same signal and has yet to say how it ended.
        signal.signal(number, signal.SIG_IGN)
    with _held(folder) as alone:
        return alone and _Follower(folder, stage_process).run()


@final
class _Follower:
    def __init__(self, folder: Path, stage_process: int) -> None:
        self._folder = folder
        self._stage_process = stage_process
        self._delivery = Delivery(folder, None)
        self._monitor: SystemMetricsMonitor | None = None
        self._pause = FIRST_PAUSE
        self._warned = False
        self._seen = {folder.resolve()}

    def run(self) -> bool:
        while True:
            dead = os.getppid() != self._stage_process
            over = dead or journal_ended(self._folder)
            if dead:
                # Nobody waits for this process any more, nor would end it.
                signal.alarm(ORPHAN_SECONDS)
            if over:
                self._stop_monitor()
            sent = self._send(dead)
            if self._delivery.closed:
                shutil.rmtree(self._folder)
                if self._delivery.status == "FINISHED":
                    # Else somebody waits who has told the stage to stop.
                    self._deliver_those_left(time.monotonic() + LEFT_SECONDS)
                return True
            if over and not sent:
                return False
            if sent and not over:
                self._deliver_one_left()
            self._wait(SEND_SECONDS if sent else self._next_pause())

    def _send(self, dead: bool) -> bool:
        try:
            self._delivery.send()
            if dead and not self._delivery.closed:
                self._delivery.end("KILLED", time.time_ns() // 1_000_000)
            elif not self._delivery.closed:
                self._start_monitor()
        except Exception as error:  # MLflow raises what its many transports raise
            if not self._warned:
                print(
                    f"tracking: {self._delivery.shown_uri} takes no records now, the work goes on "
                    f"and the record is kept: {reason(error)}",
                    file=sys.stderr,
                )
            self._warned = True
            return False
        self._pause = FIRST_PAUSE
        return True

    def _deliver_those_left(self, deadline: float) -> None:
        """The stage waits for this, so not for long; a stage may have been too short for any."""
        while time.monotonic() < deadline and self._deliver_one_left():
            pass

    def _deliver_one_left(self) -> bool:
        """What an earlier stage could not deliver; one at a time, so that this one's goes first.

        Returns:
            Whether there was one that had not been tried.
        """
        for folder in journal_folders(self._folder.resolve().parents[2]):
            if folder not in self._seen:
                self._seen.add(folder)
                # Looked at before it is locked: a sender that finds its journal locked gives up.
                if _is_left(folder, self._delivery.shown_uri):
                    _deliver_left(folder, None)
                    return True
        return False

    def _next_pause(self) -> float:
        pause, self._pause = self._pause, min(2 * self._pause, LONGEST_PAUSE)
        return pause

    def _wait(self, seconds: float) -> None:
        """Until the pause is over or the stage is."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            time.sleep(LOOK_SECONDS)
            if os.getppid() != self._stage_process or journal_ended(self._folder):
                return

    def _start_monitor(self) -> None:
        if self._monitor is not None:
            return
        from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor

        uri, run_id = self._delivery.connect()
        self._monitor = SystemMetricsMonitor(
            run_id, sampling_interval=SYSTEM_SECONDS, resume_logging=True, tracking_uri=uri
        )
        self._monitor.start()

    def _stop_monitor(self) -> None:
        if self._monitor is not None:
            self._monitor.finish()
            self._monitor = None


def deliver_left_journals(root: Path, uri: str | None) -> bool:
    """Deliver every journal of a project whose stage has ended; True when none is left.

    Args:
        root: The project.
        uri: Tracking URI to deliver to; None: the one each journal names.
    """
    return all([_deliver_left(folder, uri) for folder in journal_folders(root)])


def _deliver_left(folder: Path, uri: str | None) -> bool:
    with _held(folder) as alone:
        if not alone:
            print(f"{folder.name}: another process delivers it")
            return False
        try:
            if read_opening(folder) is None:
                # Killed before the first line was whole: there is nothing to tell.
                shutil.rmtree(folder)
                return True
            delivery = Delivery(folder, uri)
        except DamagedJournal as error:
            return _put_aside(folder, error)
        if not journal_ended(folder) and (writer := _living_writer(delivery)):
            print(f"{folder.name}: still written by {writer}; left alone")
            return False
        try:
            delivery.send()
            if not delivery.closed:
                delivery.end("KILLED", _last_written(folder))
        except DamagedJournal as error:
            return _put_aside(folder, error)
        except Exception as error:  # as in _Follower
            print(f"{folder.name}: not delivered to {delivery.shown_uri}: {reason(error)}")
            return False
        shutil.rmtree(folder)
        print(f"{folder.name}: delivered to {delivery.shown_uri}")
        return True


def _put_aside(folder: Path, error: DamagedJournal) -> bool:
    """Others must not wait for what can never be delivered; that it was not is told once."""
    print(f"{folder.name}: damaged, kept as {set_aside(folder)}: {error}")
    return False


def _is_left(folder: Path, store: str) -> bool:
    """Whether a journal for a store has no process any more that writes it."""
    try:
        found = read_opening(folder)
        if found is None:
            return False
        opening = found[0]
        ended = journal_ended(folder) or writer_lives(opening["tags"], opening["time"]) is False
    except (OSError, DamagedJournal):
        return False
    return bool(opening["tracking_uri"] == store and ended)


def _last_written(folder: Path) -> int:
    return max(int(1000 * path.stat().st_mtime) for path in folder.glob("*.jsonl"))


def _living_writer(delivery: Delivery) -> str | None:
    host, process = delivery.tags["latentline.host"], delivery.tags["latentline.pid"]
    match writer_lives(delivery.tags, delivery.began):
        case None:
            return f"process {process} of {host} (run this program there if that is not so)"
        case True:
            return f"process {process}"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Command line; exit status 0 when nothing is left to deliver."""
    parser = argparse.ArgumentParser(
        prog="python -m stages.upload_history", description="Deliver kept records to MLflow."
    )
    parser.add_argument("--to", metavar="URI", help="another store than the one recorded")
    parser.add_argument("--follow", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--writer", metavar="PID", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.follow is not None:
        return 0 if follow(asked.follow, asked.writer) else 1
    root = project_root()
    if not journal_folders(root):
        print("nothing to deliver")
    return 0 if deliver_left_journals(root, asked.to) else 1


if __name__ == "__main__":
    sys.exit(main())
