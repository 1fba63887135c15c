"""The command line that every benchmark of speed has, and what it does with contests."""

import argparse
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from benchmarks.side_by_side.contest import Contest, measure
from benchmarks.side_by_side.machine import describe_run
from benchmarks.side_by_side.report import markdown, write_report
from stages.core.allocation import keep_freed_memory
from stages.core.devices import resolve_device

__all__ = [
    "RESULTS",
    "add_device",
    "arguments_of",
    "device_of",
    "run_contests",
    "settings_of",
]

RESULTS = Path(__file__).parents[1] / "results"


def arguments_of(name: str, description: str | None, rounds: int) -> argparse.ArgumentParser:
    """Options that all of them have; a benchmark adds its sizes."""
    parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}", description=description)
    parser.add_argument("--rounds", type=int, default=rounds, help="of every contender, in turn")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--clock",
        choices=["processor", "wall"],
        help="default: processor with one thread on a CPU, else wall",
    )
    parser.add_argument("--seed", type=int, default=0, help="of weights and inputs")
    parser.add_argument("--output", type=Path, default=RESULTS / name, help="folder of the results")
    return parser


def add_device(parser: argparse.ArgumentParser) -> None:
    """The option of benchmarks that a GPU can run; give `device_of` what was said."""
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")


def device_of(options: argparse.Namespace) -> torch.device:
    """Set up as stages do."""
    return resolve_device(options.device)


def settings_of(options: argparse.Namespace) -> dict[str, object]:
    """What was asked of a benchmark, except where it writes."""
    return {key: value for key, value in vars(options).items() if key != "output"}


def run_contests(
    name: str,
    options: argparse.Namespace,
    contests: Callable[[], Iterable[Contest]],
    *,
    warm_up: bool = True,
) -> None:
    """Measure each contest and write what there is so far: a run cut short keeps it.

    Args:
        name: Of the benchmark.
        options: What `arguments_of` and the benchmark itself asked for.
        contests: Makes them, one after another: their tensors need not fit beside each other.
        warm_up: Whether all do the work once for nothing; not where they have warmed up already.
    """
    # As the training loop does; peers have it too.
    keep_freed_memory()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    on_gpu = getattr(options, "device", "cpu") == "cuda"
    clock = options.clock or ("processor" if options.threads == 1 and not on_gpu else "wall")
    started, measured = time.monotonic(), []
    run = describe_run(f"python -m benchmarks.{name}", settings_of(options))
    for contest in contests():
        measured.append(measure(contest, options.rounds, warm_up))
        print(f"{time.monotonic() - started:6.1f} s  {contest.work}, {contest.size}", flush=True)
        write_report(options.output, measured, run, clock)
    print(markdown(measured, clock), end="")
    print(f"written to {options.output}")
