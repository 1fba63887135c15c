"""The line as a Prefect flow: one task per DVC stage, in the order of dvc.yaml's graph.

DVC decides what runs and keeps every byte; Prefect decides when, retries what retrying can mend,
stops what takes too long, and shows it; MLflow's record of the run links the two. Prefect caches
nothing: two caches over one stage would disagree some day.
"""

import os
import time
from pathlib import Path
from typing import Any

from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.runtime import deployment, flow_run
from prefect.tasks import Task
from pydantic import BaseModel, ConfigDict, Field

from pipelines.figures import Figure, read_figures, samples
from pipelines.one_message import tell_mistakes_in_one_message
from pipelines.params_overlay import apply_overlay
from pipelines.record import LineRecord
from pipelines.reproduce import StageFailed, reproduce, stage_environment
from pipelines.run_page import StageOutcome, publish
from pipelines.stage_graph import stage_order, stages_with_upstream
from pipelines.workspace_lock import hold_workspace

__all__ = ["LineConfig", "LineResult", "two_stage", "worth_retrying"]


class LineConfig(BaseModel):
    """How to run the line. The numbers of the run itself stand in params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    preset: str | None = Field(
        default=None,
        description="Preset to write into params.yaml first: a file of pipelines/presets.",
    )
    set: dict[str, Any] = Field(
        default_factory=dict,
        description='Single values to write into params.yaml, e.g. {"train_prior.epochs": 20}.',
    )
    stages: list[str] = Field(
        default_factory=list,
        description="Stages to bring up to date, with all they depend on; empty: every stage.",
    )
    force: bool = Field(
        default=False,
        description="Run the named stages (empty: every stage) though nothing changed.",
    )
    workspace: str = Field(
        default=".", description="Folder of dvc.yaml and params.yaml; seen from the project root."
    )
    timeout_minutes: float = Field(
        default=240, gt=0, description="A stage that takes longer is stopped; it can go on later."
    )
    stage_timeout_minutes: dict[str, float] = Field(
        default_factory=dict,
        description='Other limits for single stages, e.g. {"train_autoencoder": 1440}.',
    )
    retries: int = Field(
        default=2,
        ge=0,
        description="Further tries for a stage that was interrupted, killed, or found DVC busy.",
    )
    retry_delays_seconds: list[float] = Field(
        default=[30, 120], min_length=1, description="Waits before each further try."
    )


class LineResult(BaseModel):
    """What a run of the line did and reached."""

    stages: list[StageOutcome]
    figures: list[Figure]
    record_url: str | None
    """The run in MLflow."""


AS_IT_STANDS = LineConfig()


@flow(name="two_stage", persist_result=False)
def two_stage(config: LineConfig = AS_IT_STANDS) -> LineResult:
    """Bring the line up to date: images -> autoencoder -> latents -> prior -> samples -> figures.

    Args:
        config: Which parameters, which stages, how patiently.

    Returns:
        What each stage did, and the figures.

    Raises:
        LatentlineError: If a stage failed or the configuration is wrong; one message.
    """
    tell_mistakes_in_one_message()
    log = get_run_logger()
    workspace = Path(config.workspace).resolve()
    graph = stage_order(workspace)
    stages = stages_with_upstream(graph, config.stages)
    stages_with_upstream(graph, list(config.stage_timeout_minutes))
    with hold_workspace(workspace, f"run {flow_run.name}", log.info) as lock:
        if config.preset or config.set:
            apply_overlay(workspace, config.preset, config.set, log.info)
        record = LineRecord.open(workspace, str(flow_run.name), _tags())
        try:
            # Figures of a part of the line would be those of an earlier run.
            whole = len(stages) == len(graph)
            result = _run_stages(config, workspace, stages, record, lock, whole=whole)
        except BaseException as error:
            record.finish("FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        record.finish("FINISHED")
    return result


def _run_stages(
    config: LineConfig,
    workspace: Path,
    stages: list[str],
    record: LineRecord,
    lock: int,
    *,
    whole: bool,
) -> LineResult:
    log = get_run_logger()
    environment = stage_environment(record.environment(), record.removed)
    outcomes: list[StageOutcome] = []
    for stage in stages:
        start = time.monotonic()
        try:
            _stage_task(stage, config)(
                stage,
                workspace,
                environment,
                config.stage_timeout_minutes.get(stage, config.timeout_minutes),
                config.force and (stage in config.stages or not config.stages),
                lock,
            )
        except Exception:
            seconds = time.monotonic() - start
            outcomes.append(StageOutcome(stage=stage, outcome="failed", seconds=seconds))
            publish(outcomes, [], None, record.url, log.warning)
            raise
        outcomes.append(_outcome(record, stage, time.monotonic() - start))
        log.info("%s: %s, %.1f s", stage, outcomes[-1].outcome, outcomes[-1].seconds)
    figures: list[Figure] = []
    picture = None
    if whole:
        figures, picture = read_figures(workspace), samples(workspace)
    publish(outcomes, figures, picture, record.url, log.warning)
    return LineResult(stages=outcomes, figures=figures, record_url=record.url)


def _outcome(record: LineRecord, stage: str, seconds: float) -> StageOutcome:
    made = record.stage_finished(stage, seconds)
    outcome = "executed" if made.executed else "cached"
    return StageOutcome(
        stage=stage, outcome=outcome, seconds=seconds, run_id=made.run_id, url=made.url
    )


def worth_retrying(task: Task[..., Any], task_run: TaskRun, state: State[Any]) -> bool:
    """Prefect's retry condition: a failed stage may succeed though nobody mends anything."""
    return isinstance(state.data, StageFailed) and state.data.worth_retrying


def _stage_task(stage: str, config: LineConfig) -> Task[..., None]:
    return _reproduce.with_options(
        name=stage,
        task_run_name=stage,
        retries=config.retries,
        retry_delay_seconds=config.retry_delays_seconds,
        retry_condition_fn=worth_retrying,
    )


@task(cache_policy=NO_CACHE, persist_result=False)
def _reproduce(
    stage: str,
    workspace: Path,
    environment: dict[str, str],
    timeout_minutes: float,
    force: bool,
    lock: int,
) -> None:
    log = get_run_logger()
    # Called by the flow and not submitted: only in the main thread do Prefect's signals arrive.
    reproduce(
        stage,
        workspace,
        lambda line: log.info(line) if line else None,
        environment=environment,
        timeout_minutes=timeout_minutes,
        force=force,
        keep_open=[lock],
    )


def _tags() -> dict[str, str]:
    """The way from MLflow's record of the run back to Prefect's."""
    page = os.environ.get("LATENTLINE_PREFECT_PAGE")
    found = {
        "prefect.flow_run_id": flow_run.id,
        "prefect.flow_run_name": flow_run.name,
        "prefect.flow_run_url": (
            f"{page}/runs/flow-run/{flow_run.id}" if page else flow_run.ui_url
        ),
        "prefect.deployment": deployment.name,
    }
    return {name: str(value) for name, value in found.items() if value}
