"""The line from the command line: run it, choose its parameters, look at it.

    python -m pipelines run [--preset NAME] [--set section.key=value ...] [--stages STAGE ...]
    python -m pipelines preset NAME [--set section.key=value ...]     only writes params.yaml
    python -m pipelines presets                                       lists the presets
    python -m pipelines sample --classes 3,7 --count 64 --out FILE.png    draws from what is trained
    python -m pipelines complete --mask upper_half --images 0,1 --out FILE.png
    python -m pipelines page                                          a web page of what is trained
    python -m pipelines pack --out FOLDER                             the same as an MLflow model
    python -m pipelines families NAME [--members MEMBER ...]          compares members of families
    python -m pipelines sweep NAME [--plan] [--set ...] [--parallel N]    many lines that differ
    python -m pipelines ui                                            opens both pages
    python -m pipelines up | down | status                            pages and a worker, to stay
    python -m pipelines reproduce RUN_ID                              a line again: equal bytes?
    python -m pipelines promote [--metric NAME] [--champion ALIAS] [--dry-run]

Exit status: 0 done; 1 a mistake to mend, told in one message; 75 interrupted, run again to go on.
"""

import argparse
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.table import Table

import stages.core.quiet  # noqa: F401
from pipelines.machine.servers import (
    answers,
    mlflow_server,
    prefect_api_until_exit,
    prefect_server,
    running,
    shown_to_runs,
    use_project_home,
)
from pipelines.many_lines import add_many_lines
from pipelines.operations import add_operations, port, project_root
from pipelines.records.figures import picture_folders, report
from pipelines.settings.params_overlay import apply_overlay, presets
from pipelines.settings.set_values import add_values, values
from pipelines.workspace.lock import hold_workspace
from stages.core.errors import EXIT_INTERRUPTED, EXIT_USER_ERROR, LatentlineError, explained

if TYPE_CHECKING:
    from pipelines.two_stage import LineResult

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status."""
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    if rest and options.command is not _program:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    options.rest = rest
    command: Callable[[argparse.Namespace], int] = options.command
    # Also when the terminal is closed: what is started here has sessions of its own, which the
    # terminal's end does not reach.
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _interrupt)
    try:
        return command(options)
    except KeyboardInterrupt:
        print("interrupted; run the same command again to go on", file=sys.stderr)
        return EXIT_INTERRUPTED
    except LatentlineError as error:
        print(error, file=sys.stderr)
        return int(getattr(error, "exit_status", EXIT_USER_ERROR))
    except Exception as error:
        message = explained(error)
        if message is None:
            raise
        print(message, file=sys.stderr)
        return EXIT_USER_ERROR


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m pipelines", description="Latentline's flows.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="bring the line up to date, as a Prefect flow")
    run.set_defaults(command=_run)
    run.add_argument("--preset", metavar="NAME", help="write this preset into params.yaml first")
    run.add_argument("--stages", nargs="+", default=[], metavar="STAGE", help="up to these only")
    run.add_argument("--force", action="store_true", help="run them though nothing changed")
    add_values(run, "write one value into params.yaml")

    preset = commands.add_parser("preset", help="write a preset into params.yaml, run nothing")
    preset.set_defaults(command=_preset)
    preset.add_argument("preset", metavar="NAME")
    add_values(preset, "write one value into params.yaml")
    commands.add_parser("presets", help="list the presets").set_defaults(command=_presets)

    # Their programs know their own options, and need torch, which no flow imports.
    for name, module, about in (
        ("sample", "stages.draw", "draw pictures from what is trained, without DVC or records"),
        ("complete", "stages.complete", "complete images of which a part is known"),
        ("page", "stages.open_page", "a web page to sample, complete, rebuild and look inside"),
        ("pack", "stages.pack_model", "what is trained as a folder that MLflow serves"),
    ):
        program = commands.add_parser(name, help=about, add_help=False)
        program.set_defaults(command=_program, module=module)

    add_many_lines(commands)
    add_operations(commands)

    ui = commands.add_parser("ui", help="open the pages of Prefect and MLflow on this machine")
    ui.set_defaults(command=_ui)
    ui.add_argument("--prefect-port", type=port, default=4200, metavar="PORT")
    ui.add_argument("--mlflow-port", type=port, default=5000, metavar="PORT")
    return parser


def _run(options: argparse.Namespace) -> int:
    root = project_root()
    config = {
        "preset": options.preset,
        "set": values(options),
        "stages": options.stages,
        "force": options.force,
    }
    prefect_api_until_exit(root)
    # Not before: prefect reads the environment when it is imported.
    from pipelines.two_stage import LineConfig, two_stage

    result = two_stage(LineConfig(**config))
    _print_result(result, root)
    return 0


def _preset(options: argparse.Namespace) -> int:
    root = project_root()
    with hold_workspace(root, "python -m pipelines preset", print):
        if not apply_overlay(root, options.preset, values(options), print):
            print("params.yaml says so already")
    return 0


def _presets(options: argparse.Namespace) -> int:
    for name, about in presets().items():
        print(f"{name:24} {about}")
    return 0


def _program(options: argparse.Namespace) -> int:
    project_root()
    return subprocess.run([sys.executable, "-m", options.module, *options.rest]).returncode


def _ui(options: argparse.Namespace) -> int:
    root = project_root()
    use_project_home(root)
    servers = []
    prefect_elsewhere = os.environ.get("PREFECT_API_URL", "")
    if prefect_elsewhere and answers(f"{prefect_elsewhere.rstrip('/')}/health"):
        print(f"Prefect: {prefect_elsewhere} (PREFECT_API_URL) answers, no other is started")
    else:
        servers.append(prefect_server(root, options.prefect_port))
    records_elsewhere = os.environ.get("MLFLOW_TRACKING_URI", "")
    if records_elsewhere.startswith("http"):
        print(f"MLflow: {records_elsewhere} (MLFLOW_TRACKING_URI) has the records; look there")
    else:
        servers.append(mlflow_server(root, options.mlflow_port))
    if not servers:
        return 0
    print(f"starting {' and '.join(server.name for server in servers)}", flush=True)
    with running(root, *servers) as processes, shown_to_runs(root, servers):
        for server in servers:
            print(f"{server.name}: {server.url}", flush=True)
        print("Ctrl-C stops them", flush=True)
        try:
            while all(process.poll() is None for process in processes):
                time.sleep(0.5)
        except KeyboardInterrupt:
            return 0
        for server, process in zip(servers, processes, strict=True):
            if process.poll() is not None:
                raise LatentlineError(f"{server.name} ended by itself; see {server.log}")
    return 0


def _print_result(result: "LineResult", root: Path) -> None:
    # Beyond a terminal's width the columns would be cut; a log file has no width.
    console = Console(width=None if sys.stdout.isatty() else 120)
    what_ran = _table("stage", "outcome", ">seconds", "MLflow run")
    for stage in result.stages:
        what_ran.add_row(stage.stage, stage.outcome, f"{stage.seconds:.1f}", stage.run_id or "")
    console.print(what_ran)
    if result.figures:
        reached = _table("figure", ">value", "unit", "better", ">N")
        for figure in result.figures:
            n = str(figure.n)
            reached.add_row(figure.name, f"{figure.value:.5g}", figure.unit, figure.better, n)
        console.print(reached)
    places = {
        "report": report(root),
        "pictures": ", ".join(str(folder.relative_to(root)) for folder in picture_folders(root)),
        "this run in MLflow": result.record_url,
        "pages": "`make ui` opens Prefect (http://127.0.0.1:4200) and MLflow (http://127.0.0.1:5000)",
    }
    for name, place in places.items():
        if place:
            shown = place.relative_to(root) if isinstance(place, Path) else place
            console.print(f"{name}: {shown}", highlight=False, soft_wrap=True)


def _table(*columns: str) -> Table:
    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        numbers = column.startswith(">")
        table.add_column(
            column.removeprefix(">"), justify="right" if numbers else "left", overflow="fold"
        )
    return table


if __name__ == "__main__":
    sys.exit(main())
