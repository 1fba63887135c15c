"""The line as a Prefect flow: one task per DVC stage, in the order of dvc.yaml's graph.

DVC decides what runs and keeps every byte; Prefect decides when, retries what retrying can mend,
stops what takes too long, and shows it; MLflow's record of the run links the two. Prefect caches
nothing: two caches over one stage would disagree some day.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from httpx import HTTPError
from prefect import flow, get_run_logger, task
from prefect.cache_policies import NO_CACHE
from prefect.exceptions import PrefectException
from prefect.runtime import deployment, flow_run
from prefect.settings import PREFECT_API_URL
from prefect.tasks import Task
from pydantic import BaseModel

from pipelines.machine.notify import notify, tell_of_crash, tell_of_failure
from pipelines.machine.prefect_setup import crash_zombies, noted_process, worth_retrying
from pipelines.records.dead_runs import deliver_history
from pipelines.records.figures import Figure, read_figures, samples
from pipelines.records.line_record import LineRecord
from pipelines.records.run_page import StageOutcome, address_of_run, publish
from pipelines.settings.line_config import LineConfig, StagesConfig
from pipelines.settings.one_message import tell_mistakes_in_one_message
from pipelines.settings.params_overlay import apply_overlay
from pipelines.workspace.changes import out_of_date, untouched
from pipelines.workspace.lock import hold_workspace
from pipelines.workspace.reproduce import reproduce, stage_environment
from pipelines.workspace.stage_graph import stage_order, stages_with_upstream
from stages.core.errors import LatentlineError, ParamsError

__all__ = [
    "LineConfig",
    "LineResult",
    "bring_up_to_date",
    "run_page",
    "run_stages",
    "run_tags",
    "two_stage",
]


class LineResult(BaseModel):
    """What a run of the line did and reached."""

    stages: list[StageOutcome]
    figures: list[Figure]
    record_url: str | None
    """The run in MLflow."""


AS_IT_STANDS = LineConfig()
COLLAPSE = "collapse alarm"
"""Words of `stages.tasks.collapse` when the alarm stops a stage."""


@flow(
    name="two_stage",
    persist_result=False,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_crash],
)
def two_stage(config: LineConfig = AS_IT_STANDS) -> LineResult:
    """Bring the line up to date: images -> autoencoder -> latents -> prior -> samples -> figures.

    Args:
        config: Which parameters, which stages, how patiently.

    Returns:
        What each stage did, and the figures.

    Raises:
        LatentlineError: If a stage failed or the configuration is wrong; one message.
    """
    return bring_up_to_date(config)


def bring_up_to_date(config: LineConfig, reason: str = "") -> LineResult:
    """The flow's work, for flows that begin otherwise; within a flow run.

    Args:
        config: Of the run.
        reason: Why it runs; kept with its record.

    Raises:
        LatentlineError: As `two_stage` does.
    """
    tell_mistakes_in_one_message()
    log = get_run_logger()
    workspace = Path(config.workspace).resolve()
    graph = stage_order(workspace)
    stages = stages_with_upstream(graph, config.stages)
    stages_with_upstream(graph, list(config.stage_timeout_minutes))
    with (
        noted_process(Path.cwd(), str(flow_run.id)),
        hold_workspace(workspace, f"run {flow_run.name}", log.info) as lock,
    ):
        _mark_crashed_runs(log.info)
        if config.preset or config.set:
            apply_overlay(workspace, config.preset, config.set, log.info)
        record = LineRecord.open(workspace, str(flow_run.name), run_tags(reason))
        force = config.stages or stages if config.force else []
        # Figures of a part of the line would be those of an earlier run.
        whole = len(stages) == len(graph)
        return run_stages(config, workspace, stages, record, lock, force=force, whole=whole)


def _mark_crashed_runs(log: Callable[[str], None]) -> None:
    """Runs whose process was killed, now that this one holds the workspace."""
    api = PREFECT_API_URL.value()
    if not api:
        return
    try:
        for run in crash_zombies(Path.cwd(), api):
            log(f"run {run.name}: its process is gone; marked as crashed")
    except (PrefectException, HTTPError) as error:
        log(f"runs whose process is gone could not be marked: {error}")


def run_stages(
    config: StagesConfig,
    workspace: Path,
    stages: list[str],
    record: LineRecord,
    lock: int,
    *,
    force: Sequence[str] = (),
    whole: bool,
) -> LineResult:
    """Run stages one after another, each as a task, and end the record.

    Args:
        config: How patiently.
        workspace: Folder of dvc.yaml.
        stages: In order; those they depend on must be up to date.
        record: Of the line.
        lock: Descriptor of the lock that is held; dvc inherits it.
        force: Those to run though nothing changed.
        whole: Whether the line's figures are those of this run afterwards.
    """
    try:
        result = _run_stages(config, workspace, stages, record, lock, force, whole)
    except BaseException as error:
        record.finish("FAILED" if isinstance(error, Exception) else "KILLED")
        raise
    record.finish("FINISHED")
    environment = stage_environment(record.environment(), record.removed)
    deliver_history(workspace, environment, get_run_logger().info)
    return result


def _run_stages(
    config: StagesConfig,
    workspace: Path,
    stages: list[str],
    record: LineRecord,
    lock: int,
    force: Sequence[str],
    whole: bool,
) -> LineResult:
    log = get_run_logger()
    environment = stage_environment(record.environment(), record.removed)
    params = _params(workspace)
    settled = _settled(workspace, stages, environment, force)
    outcomes: list[StageOutcome] = []
    for stage in stages:
        start = time.monotonic()
        try:
            _stage_task(stage, config)(
                stage,
                workspace,
                environment,
                config.stage_timeout_minutes.get(stage, config.timeout_minutes),
                stage in force,
                lock,
                params,
                stage in settled,
            )
        except Exception as error:
            if COLLAPSE in str(error):
                _tell_of_collapse(record, str(error))
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


def _settled(
    workspace: Path, stages: list[str], environment: Mapping[str, str], force: Sequence[str]
) -> frozenset[str]:
    """Stages that DVC calls up to date, asked once: asking for each of them costs seconds."""
    try:
        changed = out_of_date(workspace, stages, environment)
    except LatentlineError as error:
        # Its words for each stage are better, and what a kill has left is mended there.
        get_run_logger().info("asking DVC stage by stage: %s", str(error).splitlines()[0])
        return frozenset()
    return untouched(stages, stage_order(workspace), {*changed, *force})


def _params(workspace: Path) -> bytes:
    path = workspace / "params.yaml"
    return path.read_bytes() if path.is_file() else b""


def _outcome(record: LineRecord, stage: str, seconds: float) -> StageOutcome:
    made = record.stage_finished(stage, seconds)
    outcome = "executed" if made.executed else "cached"
    if made.executed and made.alarm:
        _tell_of_collapse(record, f"{stage}: collapse {made.alarm}")
    return StageOutcome(
        stage=stage, outcome=outcome, seconds=seconds, run_id=made.run_id, url=made.url
    )


def _tell_of_collapse(record: LineRecord, message: str) -> None:
    log = get_run_logger()
    log.warning("%s", message)
    links = {"prefect": run_page(), "mlflow": record.url}
    notify("collapse", f"run {flow_run.name}: {message}", links, log.warning)


def _stage_task(stage: str, config: StagesConfig) -> Task[..., None]:
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
    params: bytes,
    is_settled: bool,
) -> None:
    log = get_run_logger()
    if _params(workspace) != params:
        raise ParamsError(
            f"{stage}: params.yaml was edited while the line ran; the record of a line can tell of "
            "one params.yaml only, so this one ends here: run again, finished stages are kept"
        )
    if is_settled:
        log.info("%s: nothing changed, as DVC sees it", stage)
        return
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


def run_tags(reason: str = "") -> dict[str, str]:
    """The way from MLflow's record of the run back to Prefect's, and why there is a run."""
    found = {
        "prefect.flow_run_id": flow_run.id,
        "prefect.flow_run_name": flow_run.name,
        "prefect.flow_run_url": run_page(),
        "prefect.deployment": deployment.name,
        "latentline.reason": reason,
    }
    return {name: str(value) for name, value in found.items() if value}


def run_page() -> str | None:
    """Prefect's page of the present run."""
    return address_of_run(flow_run.id)
