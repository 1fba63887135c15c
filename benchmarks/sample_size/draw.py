"""The curves as two pictures."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.sample_size.measure import Curve

__all__ = ["draw"]

_COLOURS = ("#3b6ea5", "#b0413e", "#3f8f5f")


def draw(path: Path, curves: dict[int, dict[str, Curve]], title: str, axis: str) -> None:
    """One panel per dimension, one colour per kind of images."""
    figure = Figure(figsize=(9.6, 4.4), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    panels = np.atleast_1d(figure.subplots(1, len(curves)))
    for axes, (dim, kinds) in zip(panels, curves.items(), strict=True):
        for colour, (kind, curve) in zip(_COLOURS, kinds.items(), strict=False):
            _draw_curve(axes, curve, kind, colour)
        axes.set_xscale("log")
        axes.set_xlabel("images n")
        axes.set_ylabel(axis)
        axes.set_title(f"{dim} dimensions", fontsize=10)
        axes.grid(alpha=0.25)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    figure.suptitle(title, fontsize=11)
    # matplotlib would write its version into the file.
    canvas.print_png(path, metadata={"Software": None})


def _draw_curve(axes: Axes, curve: Curve, kind: str, colour: str) -> None:
    mean = curve.values.mean(axis=0)
    axes.plot(curve.sizes, mean, color=colour, marker="o", markersize=4, label=kind)
    axes.fill_between(
        curve.sizes, curve.values.min(axis=0), curve.values.max(axis=0), color=colour, alpha=0.2
    )
    if curve.errors is not None:
        reach = 1.96 * curve.errors.mean(axis=0)
        for end in (mean - reach, mean + reach):
            axes.plot(curve.sizes, end, color=colour, linewidth=0.8, linestyle=":")
    if curve.carried is not None:
        axes.axhline(curve.carried.mean(), color=colour, linewidth=1, linestyle="--")
    if curve.values.min() < 0 or curve.errors is not None:
        axes.axhline(0, color="#777777", linewidth=0.8)
        axes.set_yscale("symlog", linthresh=1e-3)
    else:
        axes.set_yscale("log")
