"""The commands that run many lines: their arguments and what they print."""

import argparse
import os
import re
from typing import Any

from pipelines.machine.servers import prefect_api, prefect_api_until_exit, use_project_home
from pipelines.operations import project_root
from pipelines.settings.line_config import ACCELERATORS, SweepConfig
from pipelines.settings.set_values import add_values, values
from pipelines.sweeping.setup import prepare_sweep
from pipelines.workspace.clones import require_repository

__all__ = ["add_many_lines"]


def add_many_lines(commands: Any) -> None:
    """Add the commands to the subparsers of `python -m pipelines`; each has its `command`."""
    families = commands.add_parser("families", help="compare members at equal wall time")
    families.set_defaults(command=_families)
    families.add_argument("name", metavar="NAME", help="a file of pipelines/families")
    families.add_argument("--members", nargs="+", default=[], metavar="MEMBER")

    sweep = commands.add_parser("sweep", help="lines that differ in some parameters")
    sweep.set_defaults(command=_sweep)
    sweep.add_argument("name", metavar="NAME", help="a file of pipelines/sweeps")
    sweep.add_argument("--plan", action="store_true", help="only say what would run")
    sweep.add_argument("--parallel", type=_count, metavar="N", help="branches side by side")
    sweep.add_argument("--slots", metavar="LIMIT", help="a concurrency limit of Prefect, e.g. gpu")
    sweep.add_argument(
        "--accelerators",
        nargs="+",
        default=[],
        type=_accelerators,
        metavar="DEVICE",
        help="each for one branch at a time, as CUDA_VISIBLE_DEVICES has them: 0 1, or 0,1 2,3",
    )
    add_values(sweep, "one value under all branches")


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 on; got {text!r}")
    return int(text)


def _accelerators(text: str) -> str:
    if not re.match(ACCELERATORS, text):
        raise argparse.ArgumentTypeError(f"must be like 0, or 0,1 for two at once; got {text!r}")
    return text


def _families(options: argparse.Namespace) -> int:
    from pipelines.comparing.families import compare
    from pipelines.comparing.family_sheet import write_results

    root = project_root()
    require_repository(root)
    if not os.environ.get("PREFECT_API_URL"):
        use_project_home(root)
    with prefect_api(root):
        outcomes = compare(root, options.name, options.members, print)
    results = root / "benchmarks" / "results" / "families" / options.name
    if options.members:
        # A few are no comparison: the table of all of them stays as it is.
        results = root / ".work" / "families" / f"{options.name}.chosen"
    table = write_results(results, outcomes)
    print(table.drop(columns="about").to_string(index=False))
    print(f"table and pictures: {results.relative_to(root)}")
    return 0


def _sweep(options: argparse.Namespace) -> int:
    root = project_root()
    config = SweepConfig(
        name=options.name,
        set=values(options),
        parallel=options.parallel,
        slots=options.slots,
        accelerators=options.accelerators,
    )
    # Before a server is started: a mistake is told at once.
    for line in prepare_sweep(config).plan():
        print(line, flush=True)
    if options.plan:
        return 0
    require_repository(root)
    prefect_api_until_exit(root)
    # Not before: prefect reads the environment when it is imported.
    from pipelines.sweep import sweep

    result = sweep(config)
    print(result.table, end="")
    places = {
        "best": f"{result.best}; to take it over: {result.take_over}" if result.best else None,
        "table and picture": ", ".join(result.files),
        "MLflow": result.record_url,
        "DVC": "dvc exp show",
    }
    for name, place in places.items():
        if place:
            print(f"{name}: {place}")
    return 0
