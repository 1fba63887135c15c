"""Time distances and their parts against others and write the results; minutes at 2048."""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.distances.measure import Task, measure
from benchmarks.distances.report import markdown, write_report
from benchmarks.distances.tasks import frechet_task, kernel_task, root_task
from benchmarks.side_by_side.machine import describe_run
from benchmarks.side_by_side.program import RESULTS, settings_of
from stages.core.randomness import derive_seed

__all__ = ["main"]

FRECHET_IMAGES = {64: (5000,), 768: (3000,), 2048: (1000,)}
"""Per dimension; at 2048 fewer than dimensions, as a class of a published set has."""
KERNEL_IMAGES = 1000


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.distances", description=__doc__)
    parser.add_argument("--dims", type=int, nargs="+", default=[64, 768, 2048])
    parser.add_argument("--rounds", type=int, default=3, help="of every way, in turn")
    parser.add_argument("--large-rounds", type=int, default=3, help="the same from 1024 dimensions")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seed", type=int, default=0, help="of all features")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "distances", help="folder of the results"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    packages = ("scipy", "torchmetrics")
    run = describe_run("python -m benchmarks.distances", settings_of(options), packages)
    started, measured = time.monotonic(), []
    for task in _tasks(options.dims, options.seed):
        rounds = options.large_rounds if task.dim >= 1024 else options.rounds
        measured.append(measure(task, rounds))
        print(f"{time.monotonic() - started:6.1f} s  {task.figure}, {task.dim}", flush=True)
        # After each: a run that is cut short keeps what it has.
        write_report(options.output, measured, run)
    print(markdown(measured), end="")
    print(f"written to {options.output}")


def _tasks(dims: list[int], seed: int) -> Iterator[Task]:
    for dim in dims:
        yield root_task(dim, derive_seed(seed, "root", dim))
        for images in FRECHET_IMAGES.get(dim, (2 * dim,)):
            yield frechet_task(dim, images, derive_seed(seed, "frechet", dim, images))
        yield kernel_task(dim, KERNEL_IMAGES, derive_seed(seed, "kernel", dim))


if __name__ == "__main__":
    main()
