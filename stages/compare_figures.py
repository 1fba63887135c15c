"""Figures of several runs beside each other, with a warning where they are not comparable.

    python -m stages.compare_figures [NAME=]PATH [NAME=]PATH ... [--strict] [--html FILE]

PATH is a folder data/metrics or a figures.json: of this workspace, of another branch, or as it
was downloaded from MLflow. The first is what the others are held against. Every figure that some
of them have is a row, with its interval and its number of images; a figure whose protocol differs
in what makes numbers incomparable (images, reference, features, resizing, settings of the metric)
gets a line that says what. Exit status 0; with --strict 1 when there was such a line.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from stages.comparing.differences import best, differences
from stages.comparing.page import write_page
from stages.comparing.runs import Judged, open_run
from stages.core.errors import EXIT_USER_ERROR, LatentlineError
from stages.metrics.figure import Figure

__all__ = ["main"]

_NO_WIDTH = 100_000
"""Columns of what is no terminal: no row is as wide."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Compare and return the exit status."""
    options = _parser().parse_args(arguments)
    try:
        if options.html is not None and options.html.is_dir():
            raise LatentlineError(f"--html: must be a file to write; got the folder {options.html}")
        runs = [open_run(text) for text in options.runs]
        if len({run.name for run in runs}) < len(runs):
            raise LatentlineError("two runs have one name; tell them apart: NAME=PATH")
        warnings = show(runs)
        if options.html is not None:
            write_page(options.html, runs, warnings)
            print(f"written: {options.html}")
    except (LatentlineError, OSError) as error:
        print(f"compare_figures: {error}", file=sys.stderr)
        return EXIT_USER_ERROR
    return EXIT_USER_ERROR if warnings and options.strict else 0


def show(runs: list[Judged]) -> list[str]:
    """Print the table; returns the warnings, which stand below it."""
    table = Table()
    for name in ("figure", *(run.name for run in runs), "unit"):
        # As text, for a name may hold what Rich takes for a style; folded, for names of figures
        # differ at their ends.
        table.add_column(Text(name), overflow="fold")
    names = list(dict.fromkeys(name for run in runs for name in run.figures))
    warnings: list[str] = []
    for name in names:
        found = [run.figures.get(name) for run in runs]
        here = [figure for figure in found if figure is not None]
        place = best(here)
        cells = [
            "-" if figure is None else _cell(figure, place is not None and here[place] is figure)
            for figure in found
        ]
        lines = unlike(name, runs)
        warnings += lines
        row = (f"{name} (!)" if lines else name, *cells, here[0].unit)
        table.add_row(*map(Text, row))
    console = Console(width=None if sys.stdout.isatty() else _NO_WIDTH)
    console.print(table)
    console.print("* best: protocols agree and intervals do not overlap")
    for line in compared(runs):
        console.print(line, markup=False)
    for line in warnings:
        console.print(f"warning: {line}", markup=False, style="yellow")
    return warnings


def unlike(name: str, runs: list[Judged]) -> list[str]:
    """A line for each run whose figure is not comparable with the first that has it."""
    having = [run for run in runs if name in run.figures]
    first, lines = having[0], []
    for other in having[1:]:
        found = differences(first.figures[name], other.figures[name]).unlike
        if found:
            what = "; ".join(str(difference) for difference in found)
            lines.append(f"{name}: {first.name} | {other.name} not comparable: {what}")
    return lines


def compared(runs: list[Judged]) -> list[str]:
    """What the comparison is about: models, samplers, seeds, each said once."""
    lines: dict[str, None] = {}
    for other in runs[1:]:
        for name in runs[0].figures.keys() & other.figures.keys():
            for difference in differences(runs[0].figures[name], other.figures[name]).compared:
                lines[f"compared: {runs[0].name} | {other.name}: {difference}"] = None
    return sorted(lines)


def _cell(figure: Figure, is_best: bool) -> str:
    span = ""
    if figure.interval is not None:
        span = f" [{figure.interval[0]:.4g}, {figure.interval[1]:.4g}]"
    return f"{'* ' if is_best else ''}{figure.value:.4g}{span}  N {figure.n}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m stages.compare_figures", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("runs", nargs="+", metavar="[NAME=]PATH", help="data/metrics of a run")
    parser.add_argument(
        "--strict", action="store_true", help="exit 1 when figures are not comparable"
    )
    parser.add_argument("--html", type=Path, metavar="FILE", help="write a page as well")
    return parser


if __name__ == "__main__":
    sys.exit(main())
