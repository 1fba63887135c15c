"""The journal of a run: an append-only file that is written before anything is sent anywhere.

A stage writes its parameters, metrics and pictures here and nothing else; it never waits for a
tracking server. Another process (`stages.upload_history`) reads the journal, sends it to MLflow
and removes it once all has arrived. A journal that is still there is a history not yet delivered.

    .work/tracking/STAGE-RECORD/
        journal.jsonl   one record per line: {"kind": ..., "time": milliseconds, ...}
        0007/grid.png   copies of the files that records name
        sent.json       how far delivery got, by the reader
"""

import contextlib
import json
import os
import shutil
import threading
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any, final

__all__ = [
    "DamagedJournal",
    "JournalWriter",
    "journal_ended",
    "journal_folders",
    "new_journal_folder",
    "project_root",
    "read_journal",
    "read_opening",
    "set_aside",
]

JOURNAL = "journal.jsonl"
OPENING = {"time", "stage", "record", "tracking_uri", "experiment", "receipt", "tags"}
"""What the first record says."""


def project_root() -> Path:
    """Absolute path of the project.

    DVC names the main checkout in DVC_ROOT even where an experiment runs in a temporary copy.
    """
    return Path(os.environ.get("DVC_ROOT") or ".").resolve()


def new_journal_folder(root: Path, stage: str) -> Path:
    """A name for one more journal of the project."""
    return root / ".work" / "tracking" / f"{stage}-{uuid.uuid4().hex[:12]}"


@final
class JournalWriter:
    """Appends records; whole lines, safe for threads."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self._lock = threading.Lock()
        self._files = 0
        self._journal = (folder / JOURNAL).open("ab", buffering=0)

    def append(self, kind: str, **fields: Any) -> None:
        """Write one record.

        Raises:
            OSError: If the disk refuses it.
        """
        record = {"kind": kind, "time": time.time_ns() // 1_000_000, **fields}
        # Unbuffered and in one write: a killed stage loses nothing it had logged.
        line = json.dumps(record, default=str).encode() + b"\n"
        with self._lock:
            self._journal.write(line)

    def keep(self, path: Path) -> str:
        """Copy a file beside the journal and return the copy's name within the folder.

        The copy is what is sent: the stage may overwrite or remove its own file meanwhile.

        Raises:
            OSError: If the file cannot be read or copied.
        """
        with self._lock:
            self._files += 1
            name = Path(f"{self._files:04d}", path.name)
        (self.folder / name).parent.mkdir()
        shutil.copyfile(path, self.folder / name)
        return name.as_posix()

    def close(self) -> None:
        """Close the file; what was appended stays."""
        self._journal.close()


def read_journal(folder: Path, offset: int) -> Iterator[tuple[dict[str, Any], int]]:
    """Whole records from byte `offset` on, each with the offset after it.

    A last line without its end (the writer was killed in the middle of it) is not read.

    Raises:
        DamagedJournal: If a line is no JSON.
    """
    with (folder / JOURNAL).open("rb") as journal:
        journal.seek(offset)
        for line in journal:
            if not line.endswith(b"\n"):
                return
            offset += len(line)
            try:
                record = json.loads(line)
            except ValueError as error:
                raise DamagedJournal(f"{folder / JOURNAL}: {error}") from None
            yield record, offset


class DamagedJournal(ValueError):
    """A line of a journal is none that a writer has written."""


def read_opening(folder: Path) -> tuple[dict[str, Any], int] | None:
    """The first record, which says whose journal it is, and the offset after it.

    Returns:
        None if the writer was killed before it was whole.

    Raises:
        DamagedJournal: If it is no such record.
    """
    found = next(read_journal(folder, 0), None)
    if found is None:
        return None
    opening, _ = found
    if not (isinstance(opening, dict) and opening.keys() >= OPENING):
        raise DamagedJournal(f"{folder / JOURNAL}: does not begin as a journal does")
    return found


def set_aside(folder: Path) -> Path:
    """Take a damaged journal out of those to be delivered; gives its new name."""
    return (folder / JOURNAL).rename(folder / "journal.damaged.jsonl")


def journal_ended(folder: Path) -> bool:
    """Whether the writer closed its record."""
    with (folder / JOURNAL).open("rb") as journal:
        journal.seek(max(0, journal.seek(0, os.SEEK_END) - 4096))
        lines = journal.read().splitlines()
    return bool(lines) and lines[-1].startswith(b'{"kind": "close"')


def journal_folders(root: Path) -> list[Path]:
    """Journals left in a project, oldest first."""
    written = {}
    for path in (root / ".work" / "tracking").glob(f"*/{JOURNAL}"):
        # Another process may have delivered it, and taken it away, since it was listed.
        with contextlib.suppress(FileNotFoundError):
            written[path.parent] = path.stat().st_mtime
    return sorted(written, key=written.__getitem__)
