"""Time trainings in one process and in several, in turn, and write what that gained.

    python -m benchmarks.scaling

Every round is written when it ends, so a run cut short keeps those it has. Wants the cores to
itself: what else runs takes from the larger counts first.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pandas as pd
import torch

from benchmarks.scaling.training import BATCH, WHAT
from benchmarks.side_by_side.machine import describe_run
from benchmarks.side_by_side.program import RESULTS
from benchmarks.side_by_side.results import write_table

__all__ = ["main", "speedups"]

Rates = dict[tuple[str, int], list[float]]
"""Images per second of every round, by training and processes."""


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--counts", type=int, nargs="+", default=[1, 2], help="processes")
    parser.add_argument("--steps", type=int, default=40, help=f"timed, of {BATCH} images each")
    parser.add_argument("--rounds", type=int, default=3, help="of every count, in turn")
    parser.add_argument("--output", type=Path, default=RESULTS / "scaling", help="of the results")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # what every process has, and what the record says
    settings = {"counts": options.counts, "steps": options.steps, "batch_size": BATCH}
    run = describe_run("python -m benchmarks.scaling", settings)
    found: Rates = {}
    loads: list[float] = []
    for _ in range(options.rounds):
        for what in WHAT:
            for count in options.counts:
                loads.append(round(os.getloadavg()[0], 1))
                rate = _images_per_second(what, count, options.steps, max(options.counts))
                found.setdefault((what, count), []).append(rate)
                print(f"{what}, {count} processes: {rate:.1f} images/s", flush=True)
        table = speedups(found)
        write_table(options.output, table, _markdown(table), run | {"load_before_each": loads})
    print((options.output / "table.md").read_text(encoding="utf-8"), end="")
    print(f"written to {options.output}")


def _images_per_second(what: str, count: int, steps: int, pieces: int) -> float:
    with tempfile.TemporaryDirectory(prefix="latentline-scaling-") as folder:
        words = (folder, what, str(count), str(steps), str(pieces))
        command = [sys.executable, "-m", "benchmarks.scaling.training", *words]
        subprocess.run(command, check=True, env={**os.environ, "OMP_NUM_THREADS": "1"})
        return json.loads((Path(folder) / "result.json").read_text())["images_per_second"]


def speedups(found: Rates) -> pd.DataFrame:
    """A row for every training and count; gains are over the fewest processes, of medians."""
    rates = pd.DataFrame(
        [(*which, rate) for which, measured in found.items() for rate in measured],
        columns=["training", "processes", "images_per_second"],
    )
    table = (
        rates.groupby(["training", "processes"])["images_per_second"]
        .agg(images_per_second="median", lowest="min", highest="max", rounds="size")
        .reset_index()
    )
    fewest = table.groupby("training")[["images_per_second", "processes"]].transform("first")
    table["speedup"] = table["images_per_second"] / fewest["images_per_second"]
    table["efficiency"] = table["speedup"] * fewest["processes"] / table["processes"]
    return table


def _markdown(table: pd.DataFrame) -> str:
    lines = [
        "| training | processes | images a second | lowest to highest | speed-up | efficiency |",
        "|---|---|---|---|---|---|",
    ]
    for row in table.itertuples():
        lines.append(
            f"| {row.training} | {row.processes} | {row.images_per_second:.1f} "
            f"| {row.lowest:.1f} to {row.highest:.1f} | {row.speedup:.2f} | {row.efficiency:.2f} |"
        )
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
