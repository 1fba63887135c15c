"""Measure all estimators and write the results; about a minute on one core."""

import argparse
import time
from pathlib import Path

import torch

from benchmarks.gradient_estimators.estimators import make_estimators
from benchmarks.gradient_estimators.measure import measure
from benchmarks.gradient_estimators.problem import INPUTS, NUM_CODES, VARIABLES, make_problem
from benchmarks.gradient_estimators.report import Measured, markdown, write_report
from benchmarks.side_by_side.machine import describe_run
from benchmarks.side_by_side.program import RESULTS
from stages.core.randomness import derive_seed, torch_stream

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gradient_estimators", description=__doc__
    )
    parser.add_argument("--draws", type=int, default=400_000, help="gradients per estimator")
    parser.add_argument("--seed", type=int, default=0, help="of the problem and of all draws")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "gradient_estimators", help="folder of the results"
    )
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    settings = {
        "seed": options.seed,
        "draws_per_estimator": options.draws,
        "inputs": INPUTS,
        "variables": VARIABLES,
        "num_codes": NUM_CODES,
    }
    run = describe_run("python -m benchmarks.gradient_estimators", settings, packages=())
    started = time.monotonic()
    problem = make_problem(derive_seed(options.seed, "problem"))
    measured: Measured = []
    for estimator in make_estimators(problem, derive_seed(options.seed, "baseline")):
        # Each its own stream: adding one moves no other's figures.
        stream = torch_stream(options.seed, estimator.name)
        moments = measure(estimator, problem, options.draws, stream)
        measured.append((estimator, moments))
        print(f"{time.monotonic() - started:6.1f} s  {estimator.name}", flush=True)
    write_report(options.output, measured, run)
    print(markdown(measured), end="")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
