"""Every member of the families on the same data, for the same wall time, judged the same way.

    python -m pipelines families digits

A comparison is a file `pipelines/families/NAME.yaml`: a base preset, seconds for each of the two
trainings, and members, each an overlay of sections. Equal wall time and reproducible bytes do not
go together, so time is turned into steps first: the training stage is run for a few steps and for
some more, the difference says what a step costs here, and `steps` that fill the seconds are written
into the member's params.yaml. What a member trained with stands in the table.

Each member runs twice in a branch of its own (`pipelines.workspace.branches`): with a prior that
learns nothing (N(0, I), uniform codes: what its own training promised) and with the learned one.
Finished members are kept, and what a step cost: a comparison that was killed goes on where it was.
"""

import json
import math
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import Field
from ruamel.yaml import YAML

from pipelines.settings.named_files import named_file, names_in
from pipelines.settings.params_overlay import overlaid, preset_path
from pipelines.workspace.branches import Branch, make_branch
from pipelines.workspace.kept_outcomes import keep, kept
from stages.core.errors import ParamsError
from stages.core.sections import Section, read_yaml, validate

__all__ = ["Comparison", "Outcome", "compare", "comparisons", "read_comparison"]

FOLDER = Path(__file__).parents[1] / "families"
# Steps of the first of the short runs that tell what a step costs, and how long the last must take
# beyond it.
FEW = 10
ENOUGH_SECONDS = 5.0


class Member(Section):
    """One line of the table."""

    about: str
    """What it is, in a few words."""
    sections: dict[str, dict[str, Any]] = Field(default_factory=dict)
    """Overlay of params.yaml, whole sections."""
    values: dict[str, Any] = Field(default_factory=dict)
    """`section.key` -> value, after the sections: a single number changed, the seed of a rerun."""
    own_prior: dict[str, Any]
    """The `prior` section that learns nothing."""
    learned: bool
    """Whether there is a learned prior to compare it with."""

    def changed(self, params: str) -> str:
        """A text of params.yaml as this member has it."""
        return overlaid(params, as_yaml(self.sections) or None, self.values)


class _Terms(Section):
    """What every file says of its members together."""

    preset: str | None
    """Preset that the members change; null: params.yaml as it stands."""
    preset_values: dict[str, Any] = Field(default_factory=dict)
    """`section.key` -> value in place of the preset's, before the members change it."""
    autoencoder_seconds: float
    prior_seconds: float


class Comparison(_Terms):
    """The content of a file that lists its members."""

    members: dict[str, Member]

    def changed(self, params: str) -> str:
        """A text of params.yaml with the preset in place: what the members change."""
        preset = preset_path(self.preset).read_text(encoding="utf-8") if self.preset else None
        return overlaid(params, preset, self.preset_values)


class Adapted(_Terms):
    """The content of a file that has the members of another, set to other data."""

    members_of: str
    """Name of the other file."""
    only: list[str] | None = None
    """Which of its members; None: all."""
    learned: bool | None = None
    """Of these members, whether there is a learned prior; None: as the other file has it."""
    values: dict[str, Any]
    """`section.key` -> value, for every member whose sections have that key."""
    members: dict[str, Member]
    """More of them, or others in place of those of the same name."""


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


def comparisons() -> list[str]:
    """Names of the files."""
    return names_in(FOLDER)


def read_comparison(name: str) -> Comparison:
    """Read a comparison by name.

    Raises:
        ParamsError: If there is none, or it is not one.
    """
    path = named_file(FOLDER, name, "families")
    content = read_yaml(path)
    if "members_of" not in content:
        return validate(Comparison, content, source=str(path))
    adapted = validate(Adapted, content, source=str(path))
    return Comparison(
        members=_adapted_members(adapted, str(path)),
        **adapted.model_dump(include=set(_Terms.model_fields)),
    )


def _adapted_members(adapted: Adapted, source: str) -> dict[str, Member]:
    there = read_comparison(adapted.members_of).members
    names = list(there) if adapted.only is None else adapted.only
    _require_members(names, there, f"{source}: only")
    members = {name: there[name] for name in names}
    unused = set(adapted.values)
    for name, member in members.items():
        sections = {section: dict(content) for section, content in member.sections.items()}
        for path, value in adapted.values.items():
            section, _, key = path.partition(".")
            if key in sections.get(section, {}):
                sections[section][key] = value
                unused.discard(path)
        learned = member.learned if adapted.learned is None else adapted.learned
        members[name] = member.model_copy(update={"sections": sections, "learned": learned})
    if unused:
        raise ParamsError(
            f"{source}: values {min(unused)}: must be a key of some member's section; no member of "
            f"{adapted.members_of} has it"
        )
    return members | adapted.members


def _require_members(names: list[str], there: dict[str, Member], source: str) -> None:
    for name in names:
        if name not in there:
            raise ParamsError(f"{source}: no member {name!r}; there are: {', '.join(there)}")


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
    """
    comparison = read_comparison(name)
    _require_members(only, comparison.members, f"families {name}")
    base = comparison.changed((root / "params.yaml").read_text(encoding="utf-8"))
    outcomes = []
    for member, what in comparison.members.items():
        if only and member not in only:
            continue
        folder = root / ".work" / "families" / name / member
        params = what.changed(base)
        # What the preset's values became stands in the params.
        exclude = {"members", "preset_values"}
        asked = {"comparison": comparison.model_dump(exclude=exclude), "params": params}
        outcome = kept(folder, asked)
        if outcome is None:
            log(f"{member}: {what.about}")
            branch = make_branch(root, folder, params, f"families {name}")
            outcome = asdict(_run(branch, member, what, comparison, log))
            keep(folder, asked, outcome)
        outcomes.append(Outcome(**outcome))
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
    seconds = _seconds_per_step(branch, "train_autoencoder", quiet)
    steps = _fill(branch, "train_autoencoder", comparison.autoencoder_seconds, seconds)
    batch = read_yaml(branch.folder / "params.yaml")["train_autoencoder"]["batch_size"]
    log(f"{member}: {seconds:.3f} s a step, {steps} steps")
    branch.params = overlaid(branch.params, as_yaml({"prior": what.own_prior}), {})
    own = _line(branch, "own", quiet)
    prior_steps, learned = 0, None
    if what.learned:
        branch.params = overlaid(branch.params, as_yaml({"prior": learned_prior}), {})
        cost = _seconds_per_step(branch, "train_prior", quiet)
        prior_steps = _fill(branch, "train_prior", comparison.prior_seconds, cost)
        learned = _line(branch, "learned", quiet)
    return Outcome(
        member, what.about, steps, batch / seconds, prior_steps, own, learned, str(branch.folder)
    )


def _line(branch: Branch, name: str, log: Callable[[str], None]) -> dict[str, float]:
    branch.python("pipelines", "run", log=log)
    data, kept = branch.folder / "data", branch.folder / ".work" / "shown"
    kept.mkdir(parents=True, exist_ok=True)
    # The next run of the branch replaces them.
    shutil.copyfile(data / "samples" / "images.npy", kept / f"{name}.npy")
    figures: dict[str, float] = json.loads((data / "metrics" / "metrics.json").read_text())
    return figures


def _repro(branch: Branch, stage: str, log: Callable[[str], None]) -> None:
    branch.python("dvc", "--wait-for-lock", "repro", stage, log=log)


def _seconds_per_step(branch: Branch, stage: str, log: Callable[[str], None]) -> float:
    """What a step of a training stage costs here and now, without start and end of the stage.

    Kept: timed again it would come out otherwise, and a training that was killed would have another
    number of steps and nothing to go on from.
    """
    text = branch.params
    folder = branch.folder / ".work" / "timed" / stage
    timed = kept(folder, {"params": text})
    if timed is not None:
        return float(timed["seconds_per_step"])
    steps = FEW
    start = _seconds(branch, stage, steps, log)
    taken = 0.0
    # Start and end vary by a second; the steps between must weigh more.
    while taken < ENOUGH_SECONDS:
        steps *= 4
        taken = _seconds(branch, stage, steps, log) - start
    branch.params = text
    per_step = taken / (steps - FEW)
    folder.mkdir(parents=True, exist_ok=True)
    keep(folder, {"params": text}, {"seconds_per_step": per_step})
    return per_step


def _seconds(branch: Branch, stage: str, steps: int, log: Callable[[str], None]) -> float:
    # A finished run's checkpoint would make a second attempt take no time at all.
    shutil.rmtree(branch.folder / ".work" / stage, ignore_errors=True)
    branch.params = _with_steps(branch.params, stage, steps)
    start = time.monotonic()
    branch.python(f"stages.{stage}", log=log, tracked=False)
    return time.monotonic() - start


def _fill(branch: Branch, stage: str, seconds: float, per_step: float) -> int:
    steps = max(FEW, math.floor(seconds / per_step))
    branch.params = _with_steps(branch.params, stage, steps)
    return steps


def _with_steps(params: str, stage: str, steps: int) -> str:
    section = YAML(typ="safe").load(params)[stage]
    changes = {
        f"{stage}.steps": steps,
        f"{stage}.warmup_steps": min(section["warmup_steps"], steps // 10),
        f"{stage}.validate_every": max(1, steps // 4),
    }
    return overlaid(params, None, changes)


def as_yaml(sections: dict[str, Any]) -> str:
    """Text of an overlay of whole sections."""
    # JSON is YAML; one line per section is what the overlay takes.
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in sections.items())
