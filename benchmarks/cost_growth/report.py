"""Exponents as a table and a picture, and what was run."""

import math
from collections.abc import Sequence
from pathlib import Path

import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.cost_growth.growth import Growth, Measured
from benchmarks.side_by_side.results import write_table

__all__ = ["markdown", "write_report"]

_TOLERANCE = 0.1
"""By which a measured exponent may be above the expected one: noise of a fit to few points."""
_LEAST_RANGE = 10
"""Of costs in a panel, highest over lowest."""


def write_report(folder: Path, grown: Sequence[Growth], run: dict[str, object]) -> None:
    """Write table.csv, table.md, cost_growth.png and run.json into a folder."""
    rows = [_row(growth, point) for growth in grown for point in growth.points]
    write_table(folder, pd.DataFrame(rows), markdown(grown), run)
    _plot(folder / "cost_growth.png", grown)


def markdown(grown: Sequence[Growth]) -> str:
    """Exponents measured and expected; bold where the measured one is above."""
    lines = [
        "| stage | what | against | sizes | time: measured / expected | "
        "peak memory: measured / expected | seconds, smallest to largest |",
        "|---|---|---|---|---|---|---|",
    ]
    for growth in grown:
        core, points = growth.core, growth.points
        cells = (
            core.stage,
            core.what,
            core.against,
            f"{core.sizes[0]} to {core.sizes[-1]}",
            _pair(growth.time, growth.expected_time),
            _pair(growth.memory, growth.expected_memory),
            f"{points[0].seconds:.3g} to {points[-1].seconds:.3g}",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _row(growth: Growth, point: Measured) -> dict[str, object]:
    return {
        "stage": growth.core.stage,
        "what": growth.core.what,
        "against": growth.core.against,
        "size": point.size,
        "processor_seconds": f"{point.seconds:.6g}",
        "peak_bytes": point.peak,
    }


def _pair(measured: float, expected: float) -> str:
    text = f"{measured:.2f} / {expected:.2f}"
    return f"**{text}**" if measured > expected + _TOLERANCE else text


def _plot(path: Path, grown: Sequence[Growth]) -> None:
    columns = 5
    rows = -(-len(grown) // columns)
    figure = Figure(figsize=(3.2 * columns, 3 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False)
    for axis in axes.flat[len(grown) :]:
        axis.set_axis_off()
    for axis, growth in zip(axes.flat, grown, strict=False):
        core, last = growth.core, growth.points[-1]
        axis.loglog(core.sizes, [p.seconds for p in growth.points], "o-", label="measured")
        expected = [
            last.seconds * core.operations(size) / core.operations(core.sizes[-1])
            for size in core.sizes
        ]
        axis.loglog(core.sizes, expected, "--", color="grey", label="expected")
        axis.set_xlabel(core.against, fontsize=8)
        axis.set_ylabel("processor seconds", fontsize=8)
        axis.set_title(f"{core.stage}\n{core.what}", fontsize=7)
        axis.tick_params(labelsize=7)
        axis.set_xticks(core.sizes, [_short(size) for size in core.sizes])
        axis.minorticks_off()
        axis.set_ylim(*_wide(*axis.get_ylim()))
    axes.flat[0].legend(fontsize=7)
    FigureCanvasAgg(figure).print_png(path)


def _wide(low: float, high: float) -> tuple[float, float]:
    """Costs that do not grow shall look like it: around the same middle, at least so far apart."""
    middle, half = math.sqrt(low * high), math.sqrt(max(high / low, _LEAST_RANGE))
    return middle / half, middle * half


def _short(size: int) -> str:
    return f"{size // 1024}k" if size >= 1024 and size % 1024 == 0 else str(size)
