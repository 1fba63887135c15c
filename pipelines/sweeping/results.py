"""What a sweep shows: a table of its branches, and how the objective goes with each axis.

The picture has a panel for each axis: a dot for every finished branch, a cross for a pruned one at
the best it had reached, and the best of each value joined where an axis has few of them.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure as Chart

from pipelines.sweeping.file import Range, Sweep
from pipelines.sweeping.plan import shown

__all__ = ["BranchOutcome", "best_of", "failures", "markdown", "table_of", "write_sweep_results"]

BLUE, ORANGE, GREY = "#3b6ea5", "#c8641e", "#6b7280"
FEW_VALUES = 12
PANELS_IN_A_ROW = 4


@dataclass(frozen=True)
class BranchOutcome:
    """What came of a branch."""

    experiment: str
    """Its name, DVC's too."""
    values: dict[str, Any]
    state: str
    """`finished`, `pruned` or `failed`."""
    objective: float | None
    """Of a pruned branch the best it had reached; None of a failed one."""
    figures: dict[str, float]
    seconds: float
    run_id: str | None
    """Of its record in MLflow."""
    why: str
    """It was pruned or failed."""
    curve: dict[str, float]
    """Step -> validation figure by which branches are pruned."""
    is_valid: bool = True
    """Whether it was tried at all: not a point of Optuna's that the stages would not accept."""


def best_of(sweep: Sweep, outcomes: Sequence[BranchOutcome]) -> BranchOutcome | None:
    """The finished branch with the best objective."""
    sign = 1 if sweep.objective.direction == "lower" else -1
    finished = [each for each in outcomes if each.state == "finished"]
    return min(finished, key=lambda each: sign * (each.objective or 0.0), default=None)


def failures(outcomes: Sequence[BranchOutcome]) -> list[BranchOutcome]:
    """Branches that make a sweep a failed one.

    Points that are not valid are none of them, or a space with holes could not be searched; unless
    there is nothing else.
    """
    failed = [each for each in outcomes if each.state == "failed"]
    tried = [each for each in failed if each.is_valid]
    return tried or (failed if len(failed) == len(outcomes) else [])


def table_of(sweep: Sweep, outcomes: Sequence[BranchOutcome]) -> pd.DataFrame:
    """A row for each branch, the best first."""
    figure = sweep.objective.figure
    rows = []
    for outcome in outcomes:
        others = {name: value for name, value in outcome.figures.items() if name != figure}
        rows.append(
            {
                "experiment": outcome.experiment,
                "state": outcome.state,
                **{name: shown(value, sweep.over[name]) for name, value in outcome.values.items()},
                figure: outcome.objective,
                "seconds": round(outcome.seconds, 1),
                "run_id": outcome.run_id,
                "why": outcome.why,
                **others,
            }
        )
    table = pd.DataFrame(rows)
    order = {"finished": 0, "pruned": 1, "failed": 2}
    ascending = sweep.objective.direction == "lower"
    table["_rank"] = table["state"].map(order)
    sorted_table = table.sort_values(["_rank", figure], ascending=[True, ascending])
    return sorted_table.drop(columns="_rank").reset_index(drop=True)


def markdown(sweep: Sweep, table: pd.DataFrame) -> str:
    """The table to read: axes, objective, state."""
    columns = ["experiment", "state", *sweep.over, sweep.objective.figure, "seconds", "why"]
    kept = [name for name in columns if name != "why" or table["why"].any()]
    lines = [f"| {' | '.join(kept)} |", f"|{'---|' * len(kept)}"]
    for row in table[kept].itertuples(index=False):
        lines.append(f"| {' | '.join(_cell(value) for value in row)} |")
    return "\n".join(lines) + "\n"


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and pd.isna(value)):
        return ""
    text = f"{value:.5g}" if isinstance(value, float) else str(value)
    return text.replace("\n", " ").replace("|", "\\|")


def write_sweep_results(
    folder: Path, name: str, sweep: Sweep, outcomes: Sequence[BranchOutcome]
) -> list[Path]:
    """Write `table.csv`, `table.md` and `sweep.png`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    table = table_of(sweep, outcomes)
    paths = [folder / "table.csv", folder / "table.md", folder / "sweep.png"]
    table.to_csv(paths[0], index=False)
    paths[1].write_text(markdown(sweep, table), encoding="utf-8")
    _draw(name, sweep, outcomes).savefig(paths[2], metadata={"Software": None})
    return paths


def _draw(name: str, sweep: Sweep, outcomes: Sequence[BranchOutcome]) -> Chart:
    columns = min(PANELS_IN_A_ROW, len(sweep.over))
    rows = -(-len(sweep.over) // columns)
    chart = Chart(figsize=(3.2 * columns + 0.8, 3.0 * rows + 0.6), dpi=110, layout="constrained")
    FigureCanvasAgg(chart)
    panels = chart.subplots(rows, columns, squeeze=False, sharey=True).flatten()
    for axes, (axis, choice) in zip(panels, sweep.over.items(), strict=False):
        _draw_panel(axes, sweep, axis, choice, outcomes)
    for axes in panels[len(sweep.over) :]:
        axes.set_visible(False)
    for axes in panels[::columns]:
        axes.set_ylabel(sweep.objective.figure.replace("_", " "))
    # A mark that only some panels have is told too, and each only once.
    marks = {
        label: handle
        for axes in panels
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    chart.legend(marks.values(), marks.keys(), loc="outside lower center", ncols=len(marks) or 1)
    counts = pd.Series([each.state for each in outcomes]).value_counts()
    states = ", ".join(f"{count} {state}" for state, count in counts.items())
    chart.suptitle(f"sweep {name}: {states}; {sweep.objective.direction} is better")
    return chart


def _draw_panel(
    axes: Axes,
    sweep: Sweep,
    axis: str,
    choice: list[Any] | Range,
    outcomes: Sequence[BranchOutcome],
) -> None:
    places, labels = _places(axis, choice, outcomes)
    points = [
        (x, each.objective, each.state)
        for x, each in zip(places, outcomes, strict=True)
        if each.objective is not None
    ]
    marks = {"finished": ("o", BLUE), "pruned": ("x", GREY)}
    for state, (marker, color) in marks.items():
        of_state = [(x, y) for x, y, its in points if its == state]
        if of_state:
            xs, ys = zip(*of_state, strict=True)
            axes.scatter(xs, ys, marker=marker, color=color, s=28, alpha=0.8, label=state)
    finished = pd.DataFrame(
        [(x, y) for x, y, state in points if state == "finished"], columns=["x", "y"]
    )
    if 1 < finished["x"].nunique() <= FEW_VALUES:
        best = finished.groupby("x")["y"]
        line = best.min() if sweep.objective.direction == "lower" else best.max()
        label = "best of each value"
        axes.plot(line.index, line.values, color=ORANGE, linewidth=1.4, zorder=0, label=label)
    if labels:
        axes.set_xticks(range(len(labels)), labels)
        axes.set_xlim(-0.5, len(labels) - 0.5)
    elif isinstance(choice, Range) and choice.scale == "log":
        axes.set_xscale("log")
    axes.set_xlabel(axis)
    axes.grid(alpha=0.25)


def _places(
    axis: str, choice: list[Any] | Range, outcomes: Sequence[BranchOutcome]
) -> tuple[list[float], list[str]]:
    """Where each branch stands on an axis, and the names of the places of a list."""
    if isinstance(choice, Range):
        return [float(each.values[axis]) for each in outcomes], []
    return [float(choice.index(each.values[axis])) for each in outcomes], [
        shown(value, choice) for value in choice
    ]
