"""Time trainings in one process and in several, in turn, and write what that gained."""

import argparse
import csv
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

from benchmarks.scaling.training import BATCH, WHAT
from stages.core.provenance import git_tags

__all__ = ["main", "markdown"]

RESULTS = Path(__file__).parents[1] / "results" / "scaling"


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2], help="processes")
    parser.add_argument("--steps", type=int, default=40, help="timed, of 128 images each")
    parser.add_argument("--rounds", type=int, default=3, help="of every count, in turn")
    parser.add_argument("--output", type=Path, default=RESULTS, help="folder of the results")
    options = parser.parse_args(arguments)
    pieces = max(options.counts)
    found: dict[tuple[str, int], list[float]] = {}
    busy = []
    for _ in range(options.rounds):
        for what in WHAT:
            for count in options.counts:
                busy.append(os.getloadavg()[0])
                rate = _measured(what, count, options.steps, pieces)
                found.setdefault((what, count), []).append(rate)
                print(f"{what}, {count} processes: {rate:.1f} images/s", flush=True)
    rows = _rows(found)
    options.output.mkdir(parents=True, exist_ok=True)
    with (options.output / "table.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, rows[0], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    (options.output / "table.md").write_text(markdown(rows), encoding="utf-8")
    run = {
        **git_tags(),
        "date": datetime.date.today().isoformat(),
        "processor": platform.processor() or platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "torch": torch.__version__,
        "batch_size": BATCH,
        "pieces": pieces,
        "steps": options.steps,
        "threads_per_process": 1,
        "others_running_at_the_start": round(busy[0], 1),
        "load_before_each": [round(load, 1) for load in busy],
    }
    (options.output / "run.json").write_text(json.dumps(run, indent=2) + "\n", encoding="utf-8")
    print(markdown(rows), end="")


def _measured(what: str, count: int, steps: int, pieces: int) -> float:
    with tempfile.TemporaryDirectory(prefix="latentline-scaling-") as folder:
        words = (folder, what, str(count), str(steps), str(pieces))
        command = [sys.executable, "-m", "benchmarks.scaling.training", *words]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return json.loads((Path(folder) / "result.json").read_text())["images_per_second"]


def _rows(found: dict[tuple[str, int], list[float]]) -> list[dict[str, object]]:
    fewest = min(count for _, count in found)
    rows = []
    for (what, count), rates in found.items():
        rate = statistics.median(rates)
        speedup = rate / statistics.median(found[what, fewest])
        rows.append(
            {
                "training": what,
                "processes": count,
                "images_per_second": f"{rate:.1f}",
                "lowest": f"{min(rates):.1f}",
                "highest": f"{max(rates):.1f}",
                "speedup": f"{speedup:.2f}",
                "efficiency": f"{speedup * fewest / count:.2f}",
                "rounds": len(rates),
            }
        )
    return rows


def markdown(rows: list[dict[str, object]]) -> str:
    """The table to read."""
    names = [name.replace("_", " ") for name in rows[0]]
    lines = [f"| {' | '.join(names)} |", "|---" * len(names) + "|"]
    lines += [f"| {' | '.join(str(value) for value in row.values())} |" for row in rows]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
