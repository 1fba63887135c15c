"""Loaded by every Python of a fault case, because its folder stands on PYTHONPATH.

What is to happen stands in LATENTLINE_FAULT as JSON; without it nothing does.

    {"victim": "stages.encode",   the module after -m, or the words after `python`
     "event": 17,                 before its 17th change of a file of the project, or
     "cpu": 1.25,                 after 1.25 s of its processor time
     "signal": 9,                 which signal; 9 where none is named
     "group": true,               its whole process group gets it: dvc, the sender of records
     "fired": "PATH"}             is made then; what is there never happens again
    {"count": "FOLDER"}           every process notes there how many changes and seconds it took
    {"shift": -86400}             the clock stands elsewhere

Processor time and not the clock: a moment is the same one on a busy machine. Audit events are
raised before what they tell of, so a kill falls between any two changes of the disk.
"""

import atexit
import json
import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

ORDER: dict[str, Any] = json.loads(os.environ.get("LATENTLINE_FAULT") or "{}")
CHANGES = {"os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.link", "os.symlink", "os.truncate"}
WRITING = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
ASIDE = ("__pycache__", "/dev/")
LOOK_SECONDS = 0.005


def who() -> str:
    """`stages.encode`, `dvc`, `pipelines`, `stage.py first`."""
    words = sys.orig_argv[1:]
    while words and words[0].startswith("-") and words[0] != "-m":
        words = words[2:] if words[0] in ("-W", "-X") else words[1:]
    return words[1] if words[:1] == ["-m"] and len(words) > 1 else " ".join(words[:2])


class Moment:
    """Counts what the process changes, and strikes when its time has come."""

    def __init__(self) -> None:
        self.events = 0
        self.root = str(Path.cwd())

    def hear(self, event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open":
            path, _, flags = arguments
            if not isinstance(flags, int) or not flags & WRITING:
                return
        elif event in CHANGES:
            path = arguments[0]
        else:
            return
        if not isinstance(path, str | os.PathLike):
            return
        name = os.fspath(path)
        if isinstance(name, bytes) or any(part in name for part in ASIDE):
            return
        if name.startswith("/") and not name.startswith(self.root + "/"):
            return
        self.events += 1
        if self.events == ORDER.get("event"):
            strike()

    def watch(self) -> None:
        while time.process_time() < ORDER["cpu"]:
            time.sleep(LOOK_SECONDS)
        strike()


def strike() -> None:
    try:
        os.close(os.open(ORDER["fired"], os.O_CREAT | os.O_EXCL | os.O_WRONLY))
    except FileExistsError:
        return
    number = ORDER.get("signal", signal.SIGKILL)
    if ORDER.get("group"):
        os.killpg(os.getpgrp(), number)
    else:
        os.kill(os.getpid(), number)


def count(moment: Moment) -> None:
    took = {"events": moment.events, "cpu": time.process_time()}
    Path(ORDER["count"], f"{who()}.json").write_text(json.dumps(took))


def shift_clock(seconds: float) -> None:
    real, real_ns = time.time, time.time_ns
    time.time = lambda: real() + seconds
    time.time_ns = lambda: real_ns() + int(seconds * 1e9)


if "shift" in ORDER:
    shift_clock(ORDER["shift"])
if "count" in ORDER:
    counted = Moment()
    sys.addaudithook(counted.hear)
    atexit.register(count, counted)
if ORDER.get("victim") == who() and not Path(ORDER["fired"]).exists():
    armed = Moment()
    sys.addaudithook(armed.hear)
    if "cpu" in ORDER:
        threading.Thread(target=armed.watch, daemon=True).start()
