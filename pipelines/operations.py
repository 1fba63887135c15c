"""The commands that keep the line running without anybody: their arguments and what they print."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.machine.servers import prefect_api_until_exit
from pipelines.machine.unattended import down, status, up
from pipelines.promoting.rebuild import rebuild
from stages.core.errors import ParamsError

__all__ = ["add_operations", "port", "project_root"]

LAST_PORT = 65535


def add_operations(commands: Any) -> None:
    """Add the commands to the subparsers of `python -m pipelines`; each has its `command`."""
    start = commands.add_parser("up", help="start servers and worker in the background")
    start.set_defaults(command=_up)
    for name, usual in (("prefect", 4200), ("mlflow", 5000)):
        start.add_argument(
            f"--{name}-port", type=port, metavar="PORT", help=f"else the last one, else {usual}"
        )
    stop = commands.add_parser("down", help="end what `up` has started, and nothing else")
    stop.set_defaults(command=_down)
    again = commands.add_parser("reproduce", help="a recorded line again; are its bytes equal?")
    again.set_defaults(command=_reproduce)
    again.add_argument("run_id", metavar="RUN_ID", help="MLflow's, of the line")
    better = commands.add_parser("promote", help="newest line the champion, if it is better")
    better.set_defaults(command=_promote)
    better.add_argument("--metric", default="class_accuracy", help="figure that has an interval")
    better.add_argument("--champion", default="champion", metavar="ALIAS")
    better.add_argument("--dry-run", action="store_true", help="only say what would be done")
    look = commands.add_parser("status", help="what of it is up; exit status 0 if all is")
    look.set_defaults(command=_status)


def port(text: str) -> int:
    """Of a server, as a type of argparse.

    Raises:
        ArgumentTypeError: If there is no such port.
    """
    if not (text.isascii() and text.isdecimal() and 1 <= int(text) <= LAST_PORT):
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 1 to {LAST_PORT}; got {text!r}"
        )
    return int(text)


def project_root() -> Path:
    """The folder the command was given in, which must be a project's.

    Raises:
        ParamsError: If it holds no dvc.yaml.
    """
    root = Path.cwd()
    if not (root / "dvc.yaml").is_file():
        raise ParamsError(f"{root} holds no dvc.yaml; run from the root of the project")
    return root


def _up(options: argparse.Namespace) -> int:
    ports = {"prefect": options.prefect_port, "mlflow": options.mlflow_port}
    pages = up(project_root(), ports, _say)
    for name, url in pages.items():
        _say(f"{name}: {url}")
    _say("start a run on Prefect's page (Deployments), or: python -m pipelines run")
    _say("python -m pipelines down ends all of it")
    return 0


def _down(options: argparse.Namespace) -> int:
    down(project_root(), _say)
    return 0


def _status(options: argparse.Namespace) -> int:
    standing = status(project_root())
    for each in standing:
        where = f"  {each.url}  process {each.pid}  log {each.log}" if each.pid else ""
        _say(f"{each.name:8} {each.state}{where}")
    return 0 if all(each.state == "up" for each in standing) else 1


def _reproduce(options: argparse.Namespace) -> int:
    compared = rebuild(project_root(), options.run_id, _say)
    width = max(len(each.path) for each in compared)
    for each in compared:
        verdict = "equal " if each.equal else "UNLIKE"
        sums = each.recorded if each.equal else f"{each.recorded} recorded, {each.here} here"
        _say(f"{verdict}  {each.kind:6}  {each.path:{width}}  {sums}")
    outputs = [each for each in compared if each.kind == "output"]
    equal = sum(each.equal for each in outputs)
    _say(f"{equal} of {len(outputs)} outputs are equal, byte for byte")
    return 0 if all(each.equal for each in compared) else 1


def _promote(options: argparse.Namespace) -> int:
    prefect_api_until_exit(project_root())
    # Not before: prefect reads the environment when it is imported.
    from pipelines.promote import PromoteConfig, promote

    config = PromoteConfig(
        metric=options.metric, champion=options.champion, dry_run=options.dry_run
    )
    state = promote(config, return_state=True)
    state.result()  # raises what the flow has raised
    _say(str(state.message))
    return 0


def _say(line: str) -> None:
    Console(highlight=False, soft_wrap=True, markup=False).print(line)
