"""The measurement as files: one row an estimator, and a picture."""

from pathlib import Path

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from benchmarks.gradient_estimators.estimators import Estimator
from benchmarks.gradient_estimators.measure import Moments
from benchmarks.side_by_side.results import write_table

__all__ = ["Measured", "markdown", "write_report"]

Measured = list[tuple[Estimator, Moments]]

_COLOURS = {
    "REINFORCE": "#9a9a9a",
    "REINFORCE, constant baseline": "#c08a3e",
    "REINFORCE, learned baseline": "#b0413e",
    "REINFORCE, leave one out": "#8a4fd0",
    "Gumbel-Softmax": "#3b6ea5",
    "straight-through Gumbel": "#3f8f5f",
}


def write_report(folder: Path, measured: Measured, run: dict[str, object]) -> None:
    """Write table.csv, table.md, bias_and_variance.png and run.json into a folder."""
    write_table(folder, pd.DataFrame([_row(*one) for one in measured]), markdown(measured), run)
    _draw(folder / "bias_and_variance.png", measured)


def markdown(measured: Measured) -> str:
    """The table to read: everything relative to the exact gradient's norm."""
    lines = [
        "| estimator | tau | costs looked at | bias / norm | variance / norm² | "
        "variance × costs / norm² |",
        "|---|---|---|---|---|---|",
    ]
    for estimator, moments in measured:
        norm = moments.exact_norm
        if moments.has_bias:
            bias = f"{moments.bias / norm:.4f} ± {moments.bias_error / norm:.4f}"
        else:
            bias = f"not distinguishable from 0 (below {moments.bias_limit / norm:.4f})"
        variance = moments.variance / norm**2
        tau = "" if estimator.tau is None else f"{estimator.tau:g}"
        lines.append(
            f"| {estimator.family} | {tau} | {estimator.evaluations} | {bias} | {variance:.3g} | "
            f"{variance * estimator.evaluations:.3g} |"
        )
    return "\n".join(lines) + "\n"


def _row(estimator: Estimator, moments: Moments) -> dict[str, object]:
    return {
        "estimator": estimator.family,
        "tau": "" if estimator.tau is None else estimator.tau,
        "evaluations": estimator.evaluations,
        "draws": moments.draws,
        "exact_norm_nats": f"{moments.exact_norm:.8g}",
        "bias_square_nats2": f"{moments.bias_square:.8g}",
        "bias_square_standard_error_nats2": f"{moments.bias_square_error:.8g}",
        "bias_square_standard_error_without_bias_nats2": f"{moments.null_error:.8g}",
        "bias_distinguishable": str(moments.has_bias).lower(),
        "variance_nats2": f"{moments.variance:.8g}",
    }


def _draw(path: Path, measured: Measured) -> None:
    figure = Figure(figsize=(9.6, 4.6), dpi=110, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    taus = sorted({e.tau for e, _ in measured if e.tau is not None})
    for family, colour in _COLOURS.items():
        members = [(e, m) for e, m in measured if e.family == family]
        if members and members[0][0].tau is None:
            _draw_level(left, right, members[0], colour)
        elif members:
            _draw_line(left, right, members, colour)
    titles = ("bias / norm of the exact gradient", "variance × costs looked at / its norm²")
    for axes, title in zip((left, right), titles, strict=True):
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_xticks(taus, [f"{tau:g}" for tau in taus])
        axes.minorticks_off()
        axes.set_xlabel("temperature tau")
        axes.set_title(title, fontsize=10)
        axes.grid(alpha=0.25)
    _say_what_is_dotted(left, [m for e, m in measured if e.tau is None and not m.has_bias])
    handles, labels = right.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    # matplotlib would write its version into the file.
    canvas.print_png(path, metadata={"Software": None})


def _draw_line(left: Axes, right: Axes, members: Measured, colour: str) -> None:
    taus = [estimator.tau for estimator, _ in members]
    norm = members[0][1].exact_norm
    errors = [2 * moments.bias_error / norm for _, moments in members]
    biases = [moments.bias / norm for _, moments in members]
    left.errorbar(taus, biases, yerr=errors, color=colour, marker="o", capsize=3)
    variances = [e.evaluations * m.variance / norm**2 for e, m in members]
    right.plot(taus, variances, color=colour, marker="o", label=members[0][0].family)


def _draw_level(left: Axes, right: Axes, member: tuple[Estimator, Moments], colour: str) -> None:
    """An estimator without a temperature; of a bias that is not seen, the most it can be."""
    estimator, moments = member
    norm = moments.exact_norm
    if moments.has_bias:
        left.axhline(moments.bias / norm, color=colour, linestyle="--")
    else:
        left.axhline(moments.bias_limit / norm, color=colour, linestyle=":", linewidth=1.8)
    variance = estimator.evaluations * moments.variance / norm**2
    right.axhline(variance, color=colour, linestyle="--", label=estimator.family)


def _say_what_is_dotted(left: Axes, levels: list[Moments]) -> None:
    """Dotted lines are limits, not measured biases."""
    if not levels:
        return
    left.annotate(
        "dotted: at most this, no bias seen",
        xy=(0.98, max(m.bias_limit / m.exact_norm for m in levels)),
        xycoords=("axes fraction", "data"),
        xytext=(0, 4),
        textcoords="offset points",
        ha="right",
        fontsize=8,
        color="#555555",
    )
