"""Wall time turned into steps: what a step of a training costs on this machine.

The training stage is run for a few steps and for some more, each validated once, at the end: the
difference is the steps' own.
"""

import math
import re
import shutil
import time
from collections.abc import Callable

from pipelines.settings.params_overlay import overlaid, read_params
from pipelines.workspace.branches import Branch
from pipelines.workspace.kept_outcomes import keep, kept
from pipelines.workspace.stage_keys import described_stages

__all__ = ["fill", "seconds_per_step", "with_steps"]

FEW = 10
"""Steps of the first of the short runs."""
MORE = 6
"""How many times as many steps the next of them has."""
ENOUGH_SECONDS = 10.0
"""How long the last must take beyond the first: starts and ends differ by a second or two."""


def seconds_per_step(branch: Branch, stage: str, log: Callable[[str], None]) -> float:
    """What a step of a training stage costs here and now, without start, validation and end.

    Kept: timed again it would come out otherwise, and a training that was killed would have another
    number of steps and nothing to go on from. Other code of the stage is timed anew.

    Args:
        branch: Whose params.yaml tells the training; the stages before it have run.
        stage: `train_autoencoder` or `train_prior`.
        log: Told what the stage says.

    Raises:
        BranchFailed: If the stage fails.
    """
    text = branch.params
    folder = branch.folder / ".work" / "timed" / stage
    asked = {"params": text, "code": _code(branch, stage)}
    timed = kept(folder, asked)
    if timed is not None:
        return float(timed["seconds_per_step"])
    steps = FEW
    start = _seconds(branch, stage, steps, log)
    taken = 0.0
    while taken < ENOUGH_SECONDS:
        steps *= MORE
        taken = _seconds(branch, stage, steps, log) - start
    branch.params = text
    per_step = taken / (steps - FEW)
    folder.mkdir(parents=True, exist_ok=True)
    keep(folder, asked, {"seconds_per_step": per_step})
    return per_step


def _code(branch: Branch, stage: str) -> str:
    """What git has of the files that the stage runs.

    Not of all there are: a new member would have every other one trained again.
    """
    params = read_params(branch.params)

    def chosen(found: re.Match[str]) -> str:
        section, _, name = found[1].partition(".")
        return str(params[section][name])

    deps = described_stages(branch.folder)[stage]["deps"]
    return branch.git(
        "ls-tree", "HEAD", "--", *(re.sub(r"\$\{([\w.]+)\}", chosen, dep) for dep in deps)
    )


def _seconds(branch: Branch, stage: str, steps: int, log: Callable[[str], None]) -> float:
    # A finished run's checkpoint would make a second attempt take no time at all.
    shutil.rmtree(branch.folder / ".work" / stage, ignore_errors=True)
    # One validation whatever the steps: it may cost as much as twenty of them.
    branch.params = with_steps(branch.params, stage, steps, validations=1)
    start = time.monotonic()
    branch.python(f"stages.{stage}", log=log, tracked=False)
    return time.monotonic() - start


def fill(branch: Branch, stage: str, seconds: float, per_step: float) -> int:
    """Write into the branch's params.yaml the steps that fill so many seconds; returns them."""
    steps = max(FEW, math.floor(seconds / per_step))
    branch.params = with_steps(branch.params, stage, steps)
    return steps


def with_steps(params: str, stage: str, steps: int, validations: int = 4) -> str:
    """A text of params.yaml in which a training has `steps`, warmup to scale.

    Args:
        params: The text as it stands.
        stage: Whose training.
        steps: Of it.
        validations: At most so many, the last at the end.
    """
    section = read_params(params)[stage]
    changes = {
        f"{stage}.steps": steps,
        f"{stage}.warmup_steps": min(section["warmup_steps"], steps // 10),
        f"{stage}.validate_every": math.ceil(steps / validations),
    }
    return overlaid(params, None, changes)
