"""Time the line bare, by DVC and by the flow, and a line that has nothing to do; write results."""

import argparse
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.orchestration.copies import make_copy, with_ten_stages
from benchmarks.orchestration.measure import Timed, Way, measure
from benchmarks.orchestration.report import markdown, write_report
from benchmarks.orchestration.ways import by_dvc, by_flow, by_hand, by_sweep, serving
from benchmarks.side_by_side.machine import describe_run
from benchmarks.side_by_side.program import RESULTS, settings_of

__all__ = ["main"]

FLOW = "flow: Prefect, DVC, MLflow"
FLOWS = ("line", "cached", "sweep")
"""These run Prefect's flow, and need its server and MLflow's."""
TASKS = ("no-op", *FLOWS)

Note = Callable[[list[Timed]], None]


def main(arguments: list[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.orchestration", description=__doc__)
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=TASKS)
    parser.add_argument("--rounds", type=int, default=1, help="of the whole line, each way in turn")
    parser.add_argument("--idle-rounds", type=int, default=5, help="of what has nothing to do")
    parser.add_argument(
        "--steps", type=float, default=1.0, help="of trainings, times params.yaml's"
    )
    parser.add_argument("--sweep", default="priors_digits", help="a file of pipelines/sweeps")
    parser.add_argument(
        "--output", type=Path, default=RESULTS / "orchestration", help="folder of the results"
    )
    options = parser.parse_args(arguments)
    # As after Ctrl-C, what has been started is ended on the way out.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    packages = ("dvc", "prefect", "mlflow")
    run = describe_run("python -m benchmarks.orchestration", settings_of(options), packages)
    measured: list[Timed] = []

    def note(found: list[Timed]) -> None:
        measured.extend(found)
        # After each: a run that is cut short keeps what it has.
        write_report(options.output, measured, run)
        print(markdown(found), flush=True)

    begun = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="orchestration-") as folder:
        if "no-op" in options.tasks:
            # `dvc repro` asks no server, and one beside it would take processor time from it.
            _measure_nothing_to_do(Path(folder), options, note)
        if set(FLOWS) & set(options.tasks):
            with serving(Path(folder)):
                _measure_flows(Path(folder), options, note)
    print(f"written to {options.output} after {time.monotonic() - begun:.0f} s")


def _measure_nothing_to_do(folder: Path, options: argparse.Namespace, note: Note) -> None:
    copy = make_copy(folder / "nothing", options.steps)
    by_dvc(copy)
    seven = Way("nothing to do, stages of dvc.yaml", "dvc repro", by_dvc)
    note(measure([seven], lambda: copy, options.idle_rounds))
    with_ten_stages(copy)
    by_dvc(copy)
    ten = Way("nothing to do, 10 stages", "dvc repro", by_dvc)
    note(measure([ten], lambda: copy, options.idle_rounds))


def _measure_flows(folder: Path, options: argparse.Namespace, note: Note) -> None:
    if "line" in options.tasks:
        ways = [
            Way("whole line", "bare stages", by_hand),
            Way("whole line", "dvc repro, no records", by_dvc),
            Way("whole line", FLOW, by_flow),
        ]
        note(measure(ways, lambda: make_copy(folder / "line", options.steps), options.rounds))
    if "cached" in options.tasks:
        copy = make_copy(folder / "line", options.steps)
        by_flow(copy)
        note(measure([Way("all cached", FLOW, by_flow)], lambda: copy, options.idle_rounds))
    if "sweep" in options.tasks:
        fresh = make_copy(folder / "sweep", 1.0)
        sweep = Way(f"sweep {options.sweep}", FLOW, lambda c: by_sweep(c, options.sweep))
        note(measure([sweep], lambda: fresh, 1))


if __name__ == "__main__":
    main()
