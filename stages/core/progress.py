"""How far a long piece of work is: a bar on a terminal, a line now and then in a log.

On a terminal tqdm draws a bar with the rate and the time left. Anywhere else (a file, DVC's or
Prefect's log) a bar would be noise, but silence would look like a hang: there a plain line comes
at most every thirty seconds. Of several processes, the first shows it.
"""

import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import final

from tqdm import tqdm

from stages.core.ranks import is_first_process

__all__ = ["Progress", "progress"]

LINE_SECONDS = 30.0
LINE = "{desc}: {n_fmt}/{total_fmt} {unit} [{elapsed}<{remaining}, {rate_fmt}{postfix}]"


@final
class Progress:
    """What `progress` yields."""

    def __init__(
        self,
        bar: "tqdm[None] | None",
        total: int,
        initial: int,
        unit: str,
        label: str,
        pause: float,
    ) -> None:
        self._bar = bar
        self._total, self._initial, self._done = total, initial, initial
        self._unit, self._label, self._pause = unit, label, pause
        self._began = self._last_line = time.monotonic()

    def advance(self, n: int, **figures: float) -> None:
        """Count `n` more units as done.

        Args:
            n: How many units.
            **figures: Numbers to show beside the count, e.g. `loss`.
        """
        self._done += n
        shown = " ".join(f"{name}={value:.4g}" for name, value in figures.items())
        if self._bar is not None:
            self._bar.set_postfix_str(shown, refresh=False)
            self._bar.update(n)
        elif time.monotonic() - self._last_line >= self._pause:
            self._write_line(shown)

    def _write_line(self, figures: str) -> None:
        self._last_line = time.monotonic()
        line = tqdm.format_meter(
            self._done,
            self._total,
            self._last_line - self._began,
            initial=self._initial,
            prefix=self._label,
            unit=self._unit,
            postfix=figures,
            bar_format=LINE,
        )
        print(line, file=sys.stderr, flush=True)


@contextmanager
def progress(
    total: int, initial: int, unit: str, label: str, pause: float = LINE_SECONDS
) -> Iterator[Progress]:
    """Show the progress of a piece of work on the standard error stream.

    Args:
        total: Units there are in all.
        initial: Units done before, e.g. by a run that was interrupted; they do not count as speed.
        unit: What is counted, e.g. `step` or `image`.
        label: What is being done.
        pause: Least seconds between two lines where there is no terminal.
    """
    if not is_first_process():
        yield Progress(None, total, initial, unit, label, math.inf)
        return
    if not sys.stderr.isatty():
        yield Progress(None, total, initial, unit, label, pause)
        return
    with tqdm(
        total=total, initial=initial, unit=unit, desc=label, dynamic_ncols=True, leave=False
    ) as bar:
        yield Progress(bar, total, initial, unit, label, pause)
