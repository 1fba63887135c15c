"""The measurement as files: a table to compute with, one to read, and what was run."""

import csv
import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

from benchmarks.orchestration.measure import Timed
from benchmarks.side_by_side.machine import processor_name
from stages.core.provenance import git_tags

__all__ = ["describe_run", "markdown", "write_report"]

FIVE_MINUTES = 300.0


def write_report(folder: Path, measured: list[Timed], run: dict[str, object]) -> None:
    """Write table.csv, table.md and, what was run, run.json into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [_row(timed, _first(timed, measured)) for timed in measured]
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (folder / "table.md").write_text(markdown(measured), encoding="utf-8")
    busy = {"others_running_at_the_end": round(os.getloadavg()[1], 1)}
    text = json.dumps({**run, **busy}, indent=2)
    (folder / "run.json").write_text(text + "\n", encoding="utf-8")


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


def describe_run(steps: float) -> dict[str, object]:
    """Commit, machine and versions; asked at the start, since a commit may follow meanwhile."""
    tags = git_tags()
    return {
        "command": "python -m benchmarks.orchestration",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": tags.get("mlflow.source.git.commit", "unknown"),
        "uncommitted_changes": tags.get("git.dirty", "unknown"),
        "steps": steps,
        "processor": processor_name(),
        "cores": len(os.sched_getaffinity(0)),
        "python": platform.python_version(),
        "dvc": version("dvc"),
        "prefect": version("prefect"),
        "mlflow": version("mlflow"),
    }
