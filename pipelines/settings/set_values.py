"""`--set SECTION.KEY=VALUE` on the command line, as often as it is wanted."""

import argparse
from typing import Any

from pipelines.settings.params_overlay import parse_override

__all__ = ["add_values", "values"]


def add_values(parser: argparse.ArgumentParser, about: str) -> None:
    """Let a command take values.

    Args:
        parser: Of the command.
        about: What it does with one.
    """
    parser.add_argument(
        "--set",
        action="append",
        default=[],
        metavar="SECTION.KEY=VALUE",
        help=f"{about}; may be given more than once",
    )


def values(options: argparse.Namespace) -> dict[str, Any]:
    """What was given.

    Raises:
        ParamsError: If one is not SECTION.KEY=VALUE.
    """
    return dict(parse_override(text) for text in options.set)
