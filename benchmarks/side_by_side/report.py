"""Contests as files: a table to compute with, one to read, and what was run."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd

from benchmarks.side_by_side.contest import Clock, Timed

__all__ = ["markdown", "write_report", "write_table"]

_COLUMNS = (
    "work",
    "size",
    "contender",
    "role",
    "milliseconds",
    "wall_milliseconds",
    "spread",
    "unit",
    "rate",
    "ours_is_faster_by",
    "rounds",
    "note",
)


def write_report(
    folder: Path, contests: Sequence[list[Timed]], run: dict[str, object], clock: Clock
) -> None:
    """Write table.csv, table.md and run.json into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_row(one, timed, clock) for timed in contests for one in timed)
    (folder / "table.md").write_text(markdown(contests, clock), encoding="utf-8")
    busy = {"ratios_of": f"{clock} seconds", "others_running_at_the_end": _others()}
    text = json.dumps({**run, **busy}, indent=2)
    (folder / "run.json").write_text(text + "\n", encoding="utf-8")


def write_table(folder: Path, table: pd.DataFrame, text: str, run: Mapping[str, object]) -> None:
    """Write table.csv, table.md and run.json of a benchmark that is no contest.

    Args:
        folder: Made if missing; what it has of these is replaced.
        table: To compute with.
        text: The same to read.
        run: What was run, where and when.
    """
    folder.mkdir(parents=True, exist_ok=True)
    table.to_csv(folder / "table.csv", index=False)
    (folder / "table.md").write_text(text, encoding="utf-8")
    (folder / "run.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")


def markdown(contests: Sequence[list[Timed]], clock: Clock) -> str:
    """The table to read; ratios are ours over theirs, so above 1 ours is faster."""
    lines = [
        f"| work | size | contender | ms ({clock}) | a second | ours is faster by | rounds |",
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
                    row["rounds"],
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
        "rounds": len(one.wall_seconds),
        "note": one.contender.note,
    }


def _short(value: float) -> float:
    return float(f"{value:.5g}")


def _others() -> float:
    return round(os.getloadavg()[0], 1)
