"""Several runs on one page that needs nothing else: figures, pictures, parameters side by side."""

import base64
from pathlib import Path
from typing import Any

from stages.comparing.differences import best, flat
from stages.comparing.runs import Judged
from stages.evaluation.page import ARROWS, SPOKEN, format_interval, format_value, render

__all__ = ["write_page"]

PICTURES = {
    "samples.png": "Samples",
    "reconstructions.png": "Test images and what the first stage rebuilds of them",
    "neighbour_distances.png": "Distances to the nearest training image",
}


def write_page(path: Path, runs: list[Judged], warnings: list[str]) -> None:
    """Write the page.

    Args:
        path: The HTML file.
        runs: First the one the others are held against.
        warnings: Lines that begin with the name of a figure that is not comparable.
    """
    unlike = {line.partition(":")[0] for line in warnings}
    names = list(dict.fromkeys(name for run in runs for name in run.figures))
    text = render(
        "comparison.html",
        runs=[run.name for run in runs],
        figures=[_row(name, runs, name in unlike) for name in names],
        warnings=warnings,
        pictures=[
            {"text": text, "shown": _pictures(name, text, runs)}
            for name, text in PICTURES.items()
            if any((run.folder / name).is_file() for run in runs)
        ],
        params=_params(runs),
    )
    path.write_text(text, encoding="utf-8")


def _row(name: str, runs: list[Judged], unlike: bool) -> dict[str, Any]:
    found = [run.figures.get(name) for run in runs]
    here = [figure for figure in found if figure is not None]
    place = best(here)
    return {
        "name": name,
        "unit": "" if here[0].unit == "1" else here[0].unit,
        "arrow": ARROWS[here[0].direction],
        "spoken": SPOKEN[here[0].direction],
        "unlike": unlike,
        "cells": [
            None
            if figure is None
            else {
                "value": format_value(figure.value),
                "interval": format_interval(figure.interval),
                "n": figure.n,
                "best": place is not None and here[place] is figure,
            }
            for figure in found
        ],
    }


def _pictures(name: str, text: str, runs: list[Judged]) -> list[dict[str, str]]:
    shown = []
    for run in runs:
        path = run.folder / name
        if path.is_file():
            data = base64.b64encode(path.read_bytes()).decode()
            alt = f"{text}: {run.name}"
            shown.append({"name": run.name, "uri": f"data:image/png;base64,{data}", "alt": alt})
    return shown


def _params(runs: list[Judged]) -> list[dict[str, Any]]:
    """Parameters that are not the same in all runs which say them."""
    told = [flat(run.params) if run.params else {} for run in runs]
    if not all(told):
        return []
    names = list(dict.fromkeys(name for values in told for name in values))
    rows = [(name, [str(values.get(name, "-")) for values in told]) for name in names]
    return [{"name": name, "values": values} for name, values in rows if len(set(values)) > 1]
