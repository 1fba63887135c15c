"""The commands that keep the line running without anybody: their arguments and what they print."""

import argparse
from pathlib import Path
from typing import Any

from rich.console import Console

from pipelines.unattended import down, status, up
from stages.core.errors import ParamsError

__all__ = ["add_operations", "project_root"]


def add_operations(commands: Any) -> None:
    """Add the commands to the subparsers of `python -m pipelines`; each has its `command`."""
    start = commands.add_parser("up", help="start servers and worker in the background")
    start.set_defaults(command=_up)
    for name, usual in (("prefect", 4200), ("mlflow", 5000)):
        start.add_argument(
            f"--{name}-port", type=int, metavar="PORT", help=f"else the last one, else {usual}"
        )
    stop = commands.add_parser("down", help="end what `up` has started, and nothing else")
    stop.set_defaults(command=_down)
    look = commands.add_parser("status", help="what of it is up; exit status 0 if all is")
    look.set_defaults(command=_status)


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


def _say(line: str) -> None:
    Console(highlight=False, soft_wrap=True, markup=False).print(line)
