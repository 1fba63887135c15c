"""The measurement as files: one row a task and way."""

import json
from pathlib import Path

import pandas as pd

from benchmarks.orchestration.measure import Timed
from benchmarks.side_by_side.results import write_table

__all__ = ["markdown", "write_report"]

FIVE_MINUTES = 300.0


def write_report(folder: Path, measured: list[Timed], run: dict[str, object]) -> None:
    """Write table.csv, table.md and, what was run, run.json into a folder."""
    rows = [_row(timed, _first(timed, measured)) for timed in measured]
    write_table(folder, pd.DataFrame(rows), markdown(measured), run)


def markdown(measured: list[Timed]) -> str:
    """The table to read; above bare stages, seconds also as a share of a line of five minutes."""
    lines = [
        "| task | way | processor seconds | of them servers | above bare | of 300 s | "
        "wall seconds | rounds | executed |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for timed in measured:
        first = _first(timed, measured)
        above = timed.processor - first.processor
        told = ("", "") if timed is first else (f"{above:.1f}", f"{above / FIVE_MINUTES:.1%}")
        executed = ", ".join(
            f"{stage} {count}" if count > 1 else stage for stage, count in timed.executed.items()
        )
        lines.append(
            f"| {timed.way.task} | {timed.way.name} | {timed.processor:.2f} | "
            f"{timed.servers:.2f} | {told[0]} | {told[1]} | {timed.wall:.2f} | "
            f"{len(timed.wall_seconds)} | {executed or 'nothing'} |"
        )
    return "\n".join(lines) + "\n"


def _first(timed: Timed, measured: list[Timed]) -> Timed:
    return next(each for each in measured if each.way.task == timed.way.task)


def _row(timed: Timed, first: Timed) -> dict[str, object]:
    return {
        "task": timed.way.task,
        "way": timed.way.name,
        "processor_seconds": f"{timed.processor:.3f}",
        "server_seconds": f"{timed.servers:.3f}",
        "of_first": f"{timed.processor / first.processor:.4f}",
        "wall_seconds": f"{timed.wall:.3f}",
        "rounds": len(timed.wall_seconds),
        "executed": json.dumps(timed.executed),
    }
