"""The measurement as files: one row a figure and way."""

from pathlib import Path

import pandas as pd

from benchmarks.distances.measure import Timed
from benchmarks.side_by_side.results import write_table

__all__ = ["markdown", "write_report"]


def write_report(folder: Path, measured: list[list[Timed]], run: dict[str, object]) -> None:
    """Write table.csv, table.md and, what was run, run.json into a folder."""
    rows = [_row(one, ways[0]) for ways in measured for one in ways]
    write_table(folder, pd.DataFrame(rows), markdown(measured), run)


def markdown(measured: list[list[Timed]]) -> str:
    """The table to read."""
    lines = [
        "| figure | dimensions | images | way | value off by | processor seconds | "
        "of ours | wall seconds | rounds |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for ways in measured:
        for one in ways:
            row = _row(one, ways[0])
            off = "" if row["off_by"] == "" else f"{float(row['off_by']):.1e}"
            lines.append(
                f"| {one.task.figure} | {one.task.dim} | {one.task.images or ''} | {one.way} | "
                f"{off} | {one.processor:.3g} | {one.processor / ways[0].processor:.2f} | "
                f"{one.wall:.3g} | {len(one.wall_seconds)} |"
            )
    return "\n".join(lines) + "\n"


def _row(one: Timed, ours: Timed) -> dict[str, object]:
    """`off_by` is relative to the exact value, or to ours where there is none."""
    exact = ours.value if one.task.exact is None else one.task.exact
    is_judge = one.task.exact is None and one is ours
    return {
        "figure": one.task.figure,
        "dim": one.task.dim,
        "images": one.task.images or "",
        "way": one.way,
        "value": f"{one.value:.12g}",
        "off_by": "" if is_judge else f"{abs(one.value - exact) / abs(exact):.3g}",
        "processor_seconds": f"{one.processor:.6g}",
        "wall_seconds": f"{one.wall:.6g}",
        "rounds": len(one.wall_seconds),
    }
