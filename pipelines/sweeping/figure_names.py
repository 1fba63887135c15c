"""Whether a stage writes the figure by which a sweep judges or prunes, told as soon as it is known.

Of some stages it is known from the beginning. Of others the names depend on parameters and members:
there the outputs of the workspace give a doubt and no more, and the first branch that has run the
stage (`pipelines.sweeping.branch`) gives certainty.
"""

import difflib
from collections.abc import Iterable, Mapping
from pathlib import Path

from pipelines.records.figures import stage_figures
from pipelines.sweeping.file import Sweep
from stages.core.errors import ParamsError

__all__ = ["ALL_FIGURES", "doubts", "no_such_figure", "require_known"]

ALL_FIGURES = {
    "train_prior": (
        "step",
        "loss",
        "learning_rate",
        "gradient_norm",
        "skipped_steps",
        "validation_nats_per_image",
        "validation_nats_per_token",
    )
}
"""Stages that write the same under all parameters -> all that they may write."""


def no_such_figure(what: str, stage: str, figure: str, there: Iterable[str]) -> str:
    """The message that a stage does not have a figure.

    Args:
        what: Who asked for it: `objective` or `pruning`.
        stage: Name of the stage.
        figure: Which one.
        there: Those it has.
    """
    names = sorted(there)
    near = difflib.get_close_matches(figure, names, 1)
    hint = f"did you mean {near[0]!r}? " if near else ""
    return (
        f"{what}.figure: must be one that {stage} writes; got {figure!r}, {hint}there are: "
        f"{', '.join(names) or 'none'}"
    )


def require_known(sweep: Sweep, name: str) -> None:
    """Check the figures of stages that are known to write no others.

    Args:
        sweep: What goes by them.
        name: Its name.

    Raises:
        ParamsError: If a stage does not write one.
    """
    for what, rule in sweep.rules.items():
        names = ALL_FIGURES.get(rule.stage)
        if names is not None and rule.figure not in names:
            raise ParamsError(
                f"sweep {name}: {no_such_figure(what, rule.stage, rule.figure, names)}"
            )


def doubts(sweep: Sweep, root: Path, outputs: Mapping[str, list[str]]) -> list[str]:
    """What the workspace's own outputs say against the figures, in lines to read.

    Args:
        sweep: What goes by them.
        root: Of the project.
        outputs: Stage -> paths.
    """
    told = []
    for what, rule in sweep.rules.items():
        there = stage_figures(root, outputs[rule.stage])
        if there and rule.figure not in there:
            message = no_such_figure(what, rule.stage, rule.figure, there)
            told.append(f"warning: {message} (in the workspace)")
    return told
