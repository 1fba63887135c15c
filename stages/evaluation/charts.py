"""Charts of the report: latents, distances to the training split, losses. No clock, no version."""

from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Chart

from stages.core.artifacts import Artifact, reading
from stages.metrics.memorisation import CLOSEST, Memorisation

__all__ = ["draw_curves", "draw_distances", "draw_profile"]

BLUE, ORANGE, GREY = "#3b6ea5", "#c8641e", "#6b7280"
BINS = 40
FURTHEST = 3.0
"""Distances beyond so many medians are told as a share and not drawn."""


def draw_profile(path: Path, values: np.ndarray, title: str) -> str:
    """Bars of what each latent dimension or code carries, in descending order."""
    chart = _chart()
    axes = chart.add_subplot()
    axes.stairs(values, fill=True, color=BLUE)
    axes.set_xlim(0, len(values))
    # Latents that never vary are a picture too: of an empty axis.
    axes.set_ylim(0, 1.05 * max(float(values.max()), 1e-9))
    axes.set_xlabel("in descending order")
    axes.set_title(title)
    _save(chart, path)
    return f"{title}, in descending order, over the test split."


def draw_distances(
    path: Path, samples: np.ndarray, test: np.ndarray, found: Memorisation, unit: float
) -> str:
    """Histogram of distances to the nearest training image.

    Args:
        path: The PNG.
        samples: Of each sample, in units of the median of test images.
        test: Of each test image, in the same units.
        found: Says where near begins.
        unit: That median, in the units of `found`.
    """
    edges = np.linspace(0, FURTHEST, BINS + 1)
    chart = _chart()
    axes = chart.add_subplot()
    for values, name, color, fill in (
        (test, "test images", GREY, True),
        (samples, "samples", ORANGE, False),
    ):
        counts = np.histogram(values, edges)[0] / len(values)
        beyond = (values > FURTHEST).mean()
        label = f"{name}, {beyond:.0%} further away" if beyond > 0 else name
        alpha = 0.4 if fill else 1.0
        axes.stairs(counts, edges, label=label, color=color, fill=fill, alpha=alpha, linewidth=1.6)
    label = f"closest {CLOSEST:.0%} of test images"
    axes.axvline(found.threshold / unit, color=BLUE, linestyle="--", linewidth=1.2, label=label)
    axes.set_xlim(0, FURTHEST)
    axes.set_ylim(bottom=0)
    axes.set_xlabel("distance to the nearest training image (median of test images = 1)")
    axes.set_ylabel("share")
    axes.legend(frameon=False, loc="upper center")
    _save(chart, path)
    return (
        f"Distances to the nearest training image, in the judge's features: {len(samples)} samples "
        f"(line) and {len(test)} test images (filled). A model that copies has samples left of the "
        "dashed line."
    )


def draw_curves(path: Path, artifact: Artifact, columns: dict[str, str], what: str) -> str | None:
    """Losses over the steps of a training, from its history.csv.

    Args:
        path: The PNG.
        artifact: A trained part.
        columns: Column -> its name in the legend; those that are missing are left out.
        what: Was trained, for the caption.

    Returns:
        What the picture shows; None where nothing was trained.
    """
    if "history.csv" not in artifact.files:
        return None
    with reading(artifact, "history.csv") as history:
        table = pd.read_csv(history)
    # A single point is no curve: a prior that learns nothing has its loss once.
    there = {
        name: label
        for name, label in columns.items()
        if name in table and table[name].notna().sum() > 1
    }
    if not there:
        return None
    chart = _chart()
    axes = chart.add_subplot()
    for (name, label), color in zip(there.items(), (BLUE, ORANGE), strict=False):
        seen = table[["step", name]].dropna()
        marker = "o" if len(seen) < 30 else ""
        axes.plot(seen["step"], seen[name], color=color, label=label, marker=marker, markersize=3)
    axes.set_xlabel("step")
    axes.legend(frameon=False)
    axes.grid(color="#e5e7eb", linewidth=0.8)
    _save(chart, path)
    return f"Training of the {what}: {' and '.join(there.values())} over steps."


def _chart() -> Chart:
    return Chart(figsize=(6.4, 3.2), dpi=100, layout="constrained")


def _save(chart: Chart, path: Path) -> None:
    # matplotlib would write its version into the file.
    FigureCanvasAgg(chart).print_png(path, metadata={"Software": None})
