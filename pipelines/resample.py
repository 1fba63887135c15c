"""New samples and their judgement from the models that are there: nothing is trained.

The project's params.yaml and data stay as they are. The work is done in a branch
(`pipelines.workspace.branches`), `.work/resample`: DVC's record of the project (dvc.lock) goes
there with the new `sampling` section, the models are checked out of the shared cache, and only
`sample` and what follows from it runs. MLflow's record of it is the project's; its stages that made
the models are linked.
"""

import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel, ConfigDict, Field
from ruamel.yaml import YAML

from pipelines.machine.notify import tell_of_crash, tell_of_failure
from pipelines.machine.prefect_setup import noted_process
from pipelines.records.line_record import LineRecord
from pipelines.records.workspace_tags import uncommitted_code
from pipelines.settings.line_config import StagesConfig
from pipelines.settings.one_message import tell_mistakes_in_one_message
from pipelines.settings.params_overlay import checked_overlay
from pipelines.two_stage import LineResult, run_stages, run_tags
from pipelines.workspace.branches import Branch, make_branch
from pipelines.workspace.lock import hold, hold_workspace
from pipelines.workspace.stage_graph import stage_order
from stages.core.errors import ArtifactError
from stages.core.sections import read_yaml
from stages.core.seeds import Seed
from stages.core.store import experiment_name

__all__ = ["ResampleConfig", "resample"]

FIRST = "sample"
"""The stage from which on a resampling runs."""


class ResampleConfig(BaseModel):
    """What to draw; what is left out is as params.yaml has it."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: Seed | None = Field(default=None, description="Other seed, other images.")
    count: int | None = Field(default=None, gt=0, description="How many images.")
    temperature: float | None = Field(default=None, gt=0, description="Below 1: less diverse.")
    guidance: float | None = Field(default=None, ge=0, description="1: none.")
    classes: list[int] | None = Field(default=None, description="Classes to draw; []: all.")
    set: dict[str, Any] = Field(
        default_factory=dict, description='Other values, e.g. {"sampling.top_p": 0.95}.'
    )
    workspace: str = Field(default=".", description="Folder of dvc.yaml of the project.")

    def values(self) -> dict[str, Any]:
        """Dotted name -> value of all that is given."""
        given = self.model_dump(exclude={"set", "workspace"}, exclude_none=True)
        return {f"sampling.{name}": value for name, value in given.items()} | self.set


AS_IT_STANDS = ResampleConfig()


@flow(
    name="resample",
    persist_result=False,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_crash],
)
def resample(config: ResampleConfig = AS_IT_STANDS) -> LineResult:
    """Draw and judge new samples from the models of the project.

    Args:
        config: What to draw.

    Returns:
        What each stage did, and the figures.

    Raises:
        LatentlineError: If the models are missing or are not those of params.yaml, a value is
            wrong, or a stage failed.
    """
    tell_mistakes_in_one_message()
    return draw_again(Path(config.workspace).resolve(), FIRST, config.values())


def draw_again(root: Path, first: str, values: Mapping[str, Any]) -> LineResult:
    """Run `first` and what follows from it in a branch with other values; within a flow run.

    Args:
        root: Of the project.
        first: Name of a stage.
        values: Dotted name -> value, of sections that only these stages read.
    """
    log = get_run_logger()
    holder = f"run {flow_run.name}"
    graph = stage_order(root)
    after = _following(graph, first)
    before = [stage for stage in graph if stage not in after]
    with (
        noted_process(Path.cwd(), str(flow_run.id)),
        hold(root / ".work" / "resample.lock", holder, log.info) as lock,
    ):
        # While they are read, nobody may be making other models.
        with hold_workspace(root, holder, log.info):
            branch = _branch(root, before, values, log.warning)
        reason = "new samples: " + ", ".join(f"{name}={value}" for name, value in values.items())
        record = LineRecord.open(branch.folder, holder.removeprefix("run "), run_tags(reason), root)
        for stage in before:
            record.stage_finished(stage, 0.0)
        result = run_stages(StagesConfig(), branch.folder, after, record, lock, whole=True)
        log.info("samples and figures: %s", branch.folder / "data")
    return result


def _following(graph: Mapping[str, list[str]], first: str) -> list[str]:
    found: list[str] = []
    for stage, upstream in graph.items():
        if stage == first or set(upstream) & set(found):
            found.append(stage)
    return found


def _branch(
    root: Path, before: list[str], values: Mapping[str, Any], warn: Callable[[str], None]
) -> Branch:
    """The branch with the project's models in it."""
    text = (root / "params.yaml").read_text(encoding="utf-8")
    params = checked_overlay(text, None, values) if values else text
    _require_models(root, before, YAML(typ="safe", pure=True).load(params))
    if changed := uncommitted_code(root):
        warn(f"drawn with the code of the commit, without uncommitted {', '.join(changed[:5])}")
    branch = make_branch(root, root / ".work" / "resample", params, experiment_name())
    shutil.copyfile(root / "dvc.lock", branch.folder / "dvc.lock")
    branch.python("dvc", "--wait-for-lock", "checkout", "--force", *before, log=lambda line: None)
    return branch


def _require_models(root: Path, before: list[str], params: Mapping[str, Any]) -> None:
    """Refuse if the stages before have not run with these parameters.

    Raises:
        ArtifactError: Naming stage and parameter.
    """
    lock = root / "dvc.lock"
    known = (read_yaml(lock).get("stages") or {}) if lock.is_file() else {}
    for stage in before:
        if stage not in known:
            raise ArtifactError(
                f"{stage}: has not run here yet, so there are no models to draw from; run the line "
                "first (`python -m pipelines run`)"
            )
        for name, value in known[stage].get("params", {}).get("params.yaml", {}).items():
            if _at(params, name) != value:
                raise ArtifactError(
                    f"{stage}: {name} of params.yaml is not what the models were made with; run "
                    "the line first (`python -m pipelines run`), or give only values of `sampling`"
                )


def _at(params: Mapping[str, Any], name: str) -> Any:
    found: Any = params
    for part in name.split("."):
        found = found.get(part) if isinstance(found, Mapping) else None
    return found
