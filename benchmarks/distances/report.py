"""The measurement as files: a table to compute with, one to read, and what was run."""

import csv
import datetime
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import scipy
import torch

from benchmarks.distances.measure import Timed
from benchmarks.side_by_side.machine import processor_name
from stages.core.provenance import git_tags

__all__ = ["describe_run", "markdown", "write_report"]


def write_report(folder: Path, measured: list[list[Timed]], run: dict[str, object]) -> None:
    """Write table.csv, table.md and, what was run, run.json into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, _row(measured[0][0], measured[0][0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(_row(one, ways[0]) for ways in measured for one in ways)
    (folder / "table.md").write_text(markdown(measured), encoding="utf-8")
    busy = {"others_running_at_the_end": round(os.getloadavg()[1], 1)}
    text = json.dumps({**run, **busy}, indent=2)
    (folder / "run.json").write_text(text + "\n", encoding="utf-8")


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


def describe_run(seed: int) -> dict[str, object]:
    """Commit, machine and versions; asked at the start, since a commit may follow meanwhile."""
    tags = git_tags()
    return {
        "command": "python -m benchmarks.distances",
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "commit": tags.get("mlflow.source.git.commit", "unknown"),
        "uncommitted_changes": tags.get("git.dirty", "unknown"),
        "seed": seed,
        "processor": processor_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "scipy": scipy.__version__,
        "torchmetrics": version("torchmetrics"),
    }
