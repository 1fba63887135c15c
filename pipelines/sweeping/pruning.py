"""Which branch of a sweep is hopeless, told from the validation figures while it trains.

The median rule of Google Vizier (Golovin et al. 2017, "Google Vizier: A Service for Black-Box
Optimization", section 3.1), on the best value so far:

    stop at step t  <=>  best of this branch up to t  >  median over peers of their best up to t

Differs: peers are only those with the same inputs to the stage. Nats of priors over different
latents do not compare: fewer codes cost fewer nats and say less. Stopped branches stay peers for
the steps they have come to.

A stage appends what it logs to its journal on the disk (`stages.core.journal`) before anything is
sent anywhere; that is where its progress is read, and the stage knows nothing of it.
"""

import csv
import json
import statistics
import threading
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import final

from pipelines.sweeping.file import Pruning
from stages.core.errors import LatentlineError
from stages.core.journal import DamagedJournal, journal_folders, read_journal
from stages.core.json_files import replace_json

__all__ = ["Curve", "Curves", "Progress", "Pruned", "curve_of_history"]

Curve = dict[int, float]
"""Step -> figure of the validation."""
LOOK_SECONDS = 1.0
"""Between two looks at a journal."""


class Pruned(LatentlineError):
    """A branch was stopped because it is hopeless; the message says by what."""


@final
class Curves:
    """The curves of all branches of a sweep, in groups that compare; safe for threads."""

    def __init__(self, rule: Pruning) -> None:
        self._rule = rule
        self._groups: dict[str, dict[str, Curve]] = defaultdict(dict)
        self._lock = threading.Lock()

    def put(self, group: str, execution: str, curve: Mapping[int, float]) -> None:
        """Note what is known of an execution.

        Args:
            group: Executions of one group have the same inputs.
            execution: Key of the execution.
            curve: As far as it has come.
        """
        with self._lock:
            self._groups[group][execution] = dict(curve)

    @property
    def are_empty(self) -> bool:
        """Whether nobody has shown the figure yet."""
        with self._lock:
            return not any(curve for its in self._groups.values() for curve in its.values())

    def verdict(self, group: str, execution: str) -> str | None:
        """Why the execution is hopeless; None while it is not."""
        with self._lock:
            curves = self._groups[group]
            mine = curves.get(execution, {})
            # Of a branch that is ahead of the others, the last step that they have come to.
            for step in sorted(mine, reverse=True):
                if step < self._rule.from_step:
                    return None
                peers = [
                    _best_until(curve, step)
                    for name, curve in curves.items()
                    if name != execution and curve and max(curve) >= step
                ]
                if len(peers) >= self._rule.peers:
                    break
            else:
                return None
        best, median = _best_until(mine, step), statistics.median(peers)
        if best <= median:
            return None
        return (
            f"{self._rule.figure} {best:.5g} at step {step} is above the median {median:.5g} of "
            f"{len(peers)} others"
        )


def _best_until(curve: Mapping[int, float], step: int) -> float:
    return min(value for at, value in curve.items() if at <= step)


@final
class Progress:
    """Reads how far a stage has come in a branch, from its journals.

    Args:
        folder: Of the branch.
        stage: Name of the stage.
        figure: Of its validation, as it is logged.
        keep_in: File that keeps it: a stage that goes on after a kill does not log again what it
            had reached.
    """

    def __init__(self, folder: Path, stage: str, figure: str, keep_in: Path) -> None:
        self._folder, self._stage, self._figure = folder, stage, figure
        self._kept = keep_in
        self._offsets: dict[Path, int] = {}
        self._next_look = 0.0
        self.curve: Curve = self._read_kept()

    def look(self) -> bool:
        """Read on, at most every second; whether there is something new."""
        if time.monotonic() < self._next_look:
            return False
        self._next_look = time.monotonic() + LOOK_SECONDS
        before = len(self.curve)
        for journal in journal_folders(self._folder):
            if journal.name.startswith(f"{self._stage}-"):
                self._read(journal)
        if len(self.curve) == before:
            return False
        self._kept.parent.mkdir(parents=True, exist_ok=True)
        replace_json(self._kept, self.curve)
        return True

    def _read(self, journal: Path) -> None:
        try:
            for record, offset in read_journal(journal, self._offsets.get(journal, 0)):
                if record["kind"] == "metrics" and self._figure in record["metrics"]:
                    self.curve[int(record["step"])] = float(record["metrics"][self._figure])
                self._offsets[journal] = offset
        except (OSError, DamagedJournal):
            return  # delivered and removed while we looked, or what is told when it is delivered

    def _read_kept(self) -> Curve:
        try:
            found = json.loads(self._kept.read_text())
        except (OSError, ValueError):
            return {}
        return {int(step): float(value) for step, value in found.items()}


def curve_of_history(folder: Path, outputs: list[str], figure: str) -> Curve:
    """The whole curve of a training that has finished, from its `history.csv`.

    Args:
        folder: Of the branch.
        outputs: Of the stage.
        figure: Column.
    """
    for output in outputs:
        path = folder / output / "history.csv"
        if path.is_file():
            with path.open(newline="", encoding="utf-8") as file:
                rows = [row for row in csv.DictReader(file) if row.get(figure)]
            return {int(float(row["step"])): float(row[figure]) for row in rows}
    return {}
