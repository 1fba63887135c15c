"""Every member of the families on the same data, for the same wall time, judged the same way.

    python -m pipelines families digits

A comparison is a file (`pipelines.comparing.comparison`). Equal wall time and reproducible bytes do
not go together, so time is turned into steps first (`pipelines.comparing.step_cost`), which are
written into the member's params.yaml. What a member trained with stands in the table.

Each member runs twice in a branch of its own (`pipelines.workspace.branches`): with a prior that
learns nothing (N(0, I), uniform codes: what its own training promised) and with the learned one.
Finished members are kept, and what a step cost: a comparison that was killed goes on where it was.
They are of one commit: at another all run again, and DVC restores what its code does not change.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from pipelines.comparing.comparison import Comparison, Member, read_comparison, require_members
from pipelines.comparing.step_cost import fill, seconds_per_step
from pipelines.records.workspace_tags import uncommitted_code
from pipelines.settings.params_overlay import as_preset, overlaid
from pipelines.workspace.branches import Branch, make_branch
from pipelines.workspace.clones import head_commit
from pipelines.workspace.kept_outcomes import keep, kept
from stages.core.sections import read_yaml

__all__ = ["Outcome", "compare"]


@dataclass(frozen=True)
class Outcome:
    """What a member did."""

    member: str
    about: str
    steps: int
    images_per_second: float
    """Of the first stage's training."""
    prior_steps: int
    own: dict[str, float]
    """Figures with the prior that learns nothing."""
    learned: dict[str, float] | None
    folder: str
    """Its branch, where pictures and data are."""


def compare(root: Path, name: str, only: list[str], log: Callable[[str], None]) -> list[Outcome]:
    """Run what is missing of a comparison.

    Args:
        root: Of the project.
        name: Of the comparison.
        only: Members to run; empty: all of them.
        log: Told what happens.

    Raises:
        ParamsError: If the file or a member does not exist.
        BranchFailed: If a stage of a member fails.
        LatentlineError: If the project has no commit.
    """
    comparison = read_comparison(name)
    require_members(only, comparison.members, f"families {name}")
    commit = head_commit(root, f"families {name}")
    if changed := uncommitted_code(root):
        log(f"warning: the branches do not have the uncommitted {', '.join(changed[:5])}")
    base = comparison.changed((root / "params.yaml").read_text(encoding="utf-8"))
    outcomes = []
    for member, what in comparison.members.items():
        if only and member not in only:
            continue
        folder = root / ".work" / "families" / name / member
        params = what.changed(base)
        # What the preset's values became stands in the params.
        exclude = {"members", "preset_values"}
        asked = {
            "comparison": comparison.model_dump(exclude=exclude),
            "params": params,
            "commit": commit,
        }
        outcome = kept(folder, asked)
        if outcome is None:
            log(f"{member}: {what.about}")
            branch = make_branch(root, folder, params, f"families {name}", commit=commit)
            outcome = asdict(_run(branch, member, what, comparison, log))
            keep(folder, asked, outcome)
        # The project may have moved since.
        outcomes.append(Outcome(**outcome | {"folder": str(folder)}))
    return outcomes


def _run(
    branch: Branch,
    member: str,
    what: Member,
    comparison: Comparison,
    log: Callable[[str], None],
) -> Outcome:
    def quiet(line: str) -> None:
        return

    learned_prior = read_yaml(branch.folder / "params.yaml")["prior"]
    branch.python("stages.params", log=quiet)
    _repro(branch, "prepare", quiet)
    seconds = seconds_per_step(branch, "train_autoencoder", quiet)
    steps = fill(branch, "train_autoencoder", comparison.autoencoder_seconds, seconds)
    batch = read_yaml(branch.folder / "params.yaml")["train_autoencoder"]["batch_size"]
    log(f"{member}: {seconds:.3f} s a step, {steps} steps")
    branch.params = overlaid(branch.params, as_preset({"prior": what.own_prior}), {})
    own = _line(branch, "own", quiet)
    prior_steps, learned = 0, None
    if what.learned:
        branch.params = overlaid(branch.params, as_preset({"prior": learned_prior}), {})
        cost = seconds_per_step(branch, "train_prior", quiet)
        prior_steps = fill(branch, "train_prior", comparison.prior_seconds, cost)
        learned = _line(branch, "learned", quiet)
    return Outcome(
        member, what.about, steps, batch / seconds, prior_steps, own, learned, str(branch.folder)
    )


def _line(branch: Branch, name: str, log: Callable[[str], None]) -> dict[str, float]:
    branch.python("pipelines", "run", log=log)
    data, shown = branch.folder / "data", branch.folder / ".work" / "shown"
    shown.mkdir(parents=True, exist_ok=True)
    # The next run of the branch replaces them.
    shutil.copyfile(data / "samples" / "images.npy", shown / f"{name}.npy")
    figures: dict[str, float] = json.loads((data / "metrics" / "metrics.json").read_text())
    return figures


def _repro(branch: Branch, stage: str, log: Callable[[str], None]) -> None:
    branch.python("dvc", "--wait-for-lock", "repro", stage, log=log)
