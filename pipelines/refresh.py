"""Has anything changed? Then the line; if not, a run that says so in seconds.

DVC is asked for data, code, parameters and outputs at once. Where nothing changed, MLflow gets no
run: there is nothing to record. Where something did, the record says what.
"""

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed

from pipelines.machine.notify import tell_of_crash, tell_of_failure
from pipelines.settings.line_config import LineConfig, StagesConfig
from pipelines.settings.one_message import tell_mistakes_in_one_message
from pipelines.two_stage import LineResult, bring_up_to_date
from pipelines.workspace.changes import out_of_date
from pipelines.workspace.lock import hold_workspace
from pipelines.workspace.reproduce import stage_environment
from pipelines.workspace.stage_graph import stage_order, stages_with_upstream

__all__ = ["refresh"]

AS_IT_STANDS = StagesConfig()


@flow(
    name="refresh",
    persist_result=False,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_crash],
)
def refresh(config: StagesConfig = AS_IT_STANDS) -> LineResult | State[None]:
    """Bring the line up to date if it is not.

    Args:
        config: Which stages, how patiently. params.yaml is read and never written.

    Returns:
        What each stage did; or a completed state that says that nothing changed.

    Raises:
        LatentlineError: If DVC cannot say what changed, or a stage failed.
    """
    tell_mistakes_in_one_message()
    log = get_run_logger()
    workspace = Path(config.workspace).resolve()
    stages = stages_with_upstream(stage_order(workspace), config.stages)
    with hold_workspace(workspace, f"run {flow_run.name}", log.info):
        changes = out_of_date(workspace, stages, stage_environment({}, []))
    if not changes:
        said = f"nothing changed: {len(stages)} stages are up to date"
        create_markdown_artifact(said, key="changes", description="What changed")
        return Completed(message=said)
    lines = [f"{stage}: {', '.join(told)}" for stage, told in changes.items()]
    table = "\n".join(f"* {line}" for line in lines)
    create_markdown_artifact(table, key="changes", description="What changed")
    for line in lines:
        log.info("changed: %s", line)
    return bring_up_to_date(LineConfig(**config.model_dump()), reason="\n".join(lines))
