"""Contests as files: one row a contender, with the ratio of ours to it."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from benchmarks.side_by_side.contest import Clock, Timed
from benchmarks.side_by_side.results import write_table

__all__ = ["markdown", "write_report"]


def write_report(
    folder: Path, contests: Sequence[list[Timed]], run: dict[str, object], clock: Clock
) -> None:
    """Write table.csv, table.md and run.json into a folder."""
    rows = [_row(one, timed, clock) for timed in contests for one in timed]
    about = {**run, "ratios_of": f"{clock} seconds"}
    write_table(folder, pd.DataFrame(rows), markdown(contests, clock), about)


def markdown(contests: Sequence[list[Timed]], clock: Clock) -> str:
    """The table to read; ratios are ours over theirs, so above 1 ours is faster."""
    lines = [
        f"| work | size | contender | ms ({clock}) | a second | ours is faster by | timed runs |",
        "|---|---|---|---|---|---|---|",
    ]
    for timed in contests:
        for one in timed:
            row = _row(one, timed, clock)
            name = f"*{one.contender.name}*" if row["role"] == "ceiling" else one.contender.name
            shown = (
                ("", one.contender.note, "", "")
                if one.contender.run is None
                else (
                    f"{row['milliseconds']:.4g}",
                    f"{row['rate']:.4g} {row['unit']}",
                    "" if row["role"] == "ours" else f"{row['ours_is_faster_by']:.2f}",
                    row["runs"],
                )
            )
            cells = (row["work"], row["size"], name, *shown)
            lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def _row(one: Timed, timed: list[Timed], clock: Clock) -> dict[str, object]:
    [ours] = [other for other in timed if other.contender.role == "ours"]
    return {
        "work": one.contest.work,
        "size": one.contest.size,
        "contender": one.contender.name,
        "role": one.contender.role,
        "milliseconds": _short(1000 * one.seconds(clock)),
        "wall_milliseconds": _short(1000 * one.seconds("wall")),
        "spread": _short(one.spread(clock)),
        "unit": one.contest.unit,
        "rate": _short(one.rate(clock)),
        "ours_is_faster_by": _short(ours.rate(clock) / one.rate(clock)),
        "runs": len(one.wall_seconds),
        "note": one.contender.note,
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")
