"""What a sweep is: a file `pipelines/sweeps/NAME.yaml`.

    preset: null                     # params.yaml as it stands, or a preset, under every branch
    set: {train_prior.steps: 120}    # and single values
    stages: [train_prior]            # up to these, with all they depend on; []: every stage
    objective: {stage: train_prior, figure: validation_nats_per_image, direction: lower}
    search: {kind: grid}             # {kind: random | optuna, count: 20, seed: 0}
    over:
      prior.layers: [1, 2, 3]                                       # one of these
      train_prior.learning_rate: {low: 1e-4, high: 1e-2, scale: log}    # not for a grid
    parallel: 2
    pruning: null                    # or {stage, figure, from_step, peers}

A value of `over` may be anything params.yaml can hold: `prior` with a list of whole sections is a
sweep over priors. No axis may set what another one sets, nor what `set` does: the table would tell
values that a branch does not have.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from pipelines.settings.named_files import named_file, names_in
from stages.core.errors import ParamsError
from stages.core.sections import Section, read_yaml, validate
from stages.core.seeds import Seed

__all__ = [
    "Objective",
    "Pruning",
    "Range",
    "Search",
    "Sweep",
    "covering",
    "read_sweep",
    "sweeps",
]

FOLDER = Path(__file__).parents[1] / "sweeps"
NAMES = re.compile(r"\w+([.-]\w+|-)*")
"""Of files: experiments of DVC are named after them, and these are references of git."""


class Range(Section):
    """Numbers from `low` to `high`, both included."""

    low: float
    high: float
    scale: Literal["linear", "log", "integer"]
    """`log`: equal ratios are equally likely; `integer`: whole numbers."""

    @model_validator(mode="after")
    def _is_a_range(self) -> "Range":
        if not self.low < self.high:
            raise ValueError(f"low must be below high; got {self.low:g} and {self.high:g}")
        if self.scale == "log" and self.low <= 0:
            raise ValueError(f"low must be above 0 on a log scale; got {self.low:g}")
        if self.scale == "integer" and not (self.low.is_integer() and self.high.is_integer()):
            raise ValueError(f"low and high must be whole; got {self.low:g} and {self.high:g}")
        return self


class Search(Section):
    """How values are chosen."""

    kind: Literal["grid", "random", "optuna"]
    """`grid`: every combination; `optuna`: its TPE sampler, which learns from what came out."""
    count: int | None = Field(default=None, gt=0)
    """Branches; a grid says itself how many."""
    seed: Seed | None = None

    @model_validator(mode="after")
    def _says_how_many(self) -> "Search":
        given = self.count is not None and self.seed is not None
        nothing = self.count is None and self.seed is None
        if not (nothing if self.kind == "grid" else given):
            must = "have no count and no seed" if self.kind == "grid" else "have count and seed"
            raise ValueError(f"a search of kind {self.kind} must {must}")
        return self


class Objective(Section):
    """By what branches are compared."""

    stage: str
    figure: str
    """In `history.csv` or `metrics.json` among the outputs of the stage."""
    direction: Literal["lower", "higher"]


class Pruning(Section):
    """When a branch is hopeless; the lower the figure, the better."""

    stage: str
    """A training; stopped in the middle."""
    figure: str
    """Of its validation, as the stage logs it while it runs."""
    from_step: int = Field(gt=0)
    """Not before this step, which some branch must come to."""
    peers: int = Field(gt=0)
    """Not before so many others have come as far."""


Choices = Annotated[list[Any], Field(min_length=1)]


class Sweep(Section):
    """The content of the file."""

    preset: str | None
    set: dict[str, Any]
    """Dotted name -> value, under every branch."""
    stages: list[str]
    objective: Objective
    search: Search
    over: dict[str, Choices | Range] = Field(min_length=1)
    """Dotted name in params.yaml -> what it is set to."""
    parallel: int = Field(gt=0)
    """Branches side by side."""
    pruning: Pruning | None

    @property
    def rules(self) -> dict[str, Objective | Pruning]:
        """What goes by a figure of a stage, under its name in the file."""
        pruning = {"pruning": self.pruning} if self.pruning else {}
        return {"objective": self.objective, **pruning}

    @model_validator(mode="after")
    def _has_points(self) -> "Sweep":
        for name, axis in self.over.items():
            if isinstance(axis, list) and any(axis.count(value) > 1 for value in axis):
                raise ValueError(f"over.{name}: values must differ; got {axis}")
            if self.search.kind == "grid" and isinstance(axis, Range):
                raise ValueError(
                    f"over.{name}: a grid needs a list of values; got a range, which random and "
                    "optuna draw from"
                )
            if above := covering(name, self.over):
                raise ValueError(
                    f"over.{name}: must not lie within another axis, or one would replace what the "
                    f"other has set; got {above!r} too"
                )
        for name in self.set:
            if above := covering(name, self.over, itself=True):
                raise ValueError(f"set.{name}: the axis {above!r} sets it in every branch")
        return self


def covering(name: str, axes: Iterable[str], *, itself: bool = False) -> str | None:
    """The axis whose values hold a value of `name`; None if there is none.

    Args:
        name: Dotted, in params.yaml.
        axes: Dotted names.
        itself: Whether an axis holds the value of its own name.
    """
    within = (axis for axis in axes if name.startswith(f"{axis}.") or (itself and name == axis))
    return next(within, None)


def sweeps() -> list[str]:
    """Names of the files."""
    return names_in(FOLDER)


def read_sweep(name: str) -> Sweep:
    """Read a sweep by name.

    Raises:
        ParamsError: If there is none, it is not one, or its branches could not be named after it.
    """
    path = named_file(FOLDER, name, "sweep")
    if not NAMES.fullmatch(name):
        raise ParamsError(
            f"sweep {name!r}: its branches become experiments of DVC, named after it, so its name "
            "must be letters, digits, _, - and single dots between them; rename the file"
        )
    return validate(Sweep, read_yaml(path), source=str(path))
