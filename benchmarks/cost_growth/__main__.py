"""Measure how costs grow and write the results; minutes on an idle core."""

import time

import torch

from benchmarks.cost_growth.cores import cores
from benchmarks.cost_growth.growth import measure_growth
from benchmarks.cost_growth.report import markdown, write_report
from benchmarks.side_by_side.machine import describe_run
from benchmarks.side_by_side.program import arguments_of, settings_of

__all__ = ["main"]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = arguments_of("cost_growth", __doc__, rounds=3)
    parser.add_argument("--scale", type=int, default=1, help="divides sizes, for a quick try")
    parser.add_argument("--only", nargs="+", help="stages; default: all")
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    run = describe_run("python -m benchmarks.cost_growth", settings_of(options))
    started, grown = time.monotonic(), []
    for core in cores(options.seed, options.scale):
        if options.only and core.stage not in options.only:
            continue
        grown.append(measure_growth(core, options.rounds))
        print(f"{time.monotonic() - started:6.1f} s  {core.stage}: {core.what}", flush=True)
        write_report(options.output, grown, run)
    print(markdown(grown), end="")
    print(f"written to {options.output}")


if __name__ == "__main__":
    main()
