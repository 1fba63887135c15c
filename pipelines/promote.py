"""The flow around `pipelines.promoting`: compare, promote, say so on the page and elsewhere."""

from pathlib import Path

from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from pydantic import BaseModel, ConfigDict, Field

from pipelines.machine.notify import notify, tell_of_crash, tell_of_failure
from pipelines.machine.prefect_setup import noted_process
from pipelines.promoting.promotion import Decision, promote_newest
from pipelines.settings.one_message import tell_mistakes_in_one_message
from pipelines.two_stage import run_page

__all__ = ["PromoteConfig", "promote"]


class PromoteConfig(BaseModel):
    """What to compare, and whose name to give away."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    metric: str = Field(
        default="class_accuracy",
        description="Figure to compare: a name in figures.json that has an interval.",
    )
    champion: str = Field(default="champion", description="Alias in MLflow's registry.")
    model: str = Field(default="latentline", description="Registered model that has the alias.")
    dry_run: bool = Field(default=False, description="Only say what would be done.")
    workspace: str = Field(default=".", description="Folder of dvc.yaml of the project.")


AS_IT_STANDS = PromoteConfig()


@flow(
    name="promote",
    persist_result=False,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_crash],
)
def promote(config: PromoteConfig = AS_IT_STANDS) -> State[Decision]:
    """Make the newest line the champion if it is really better.

    Args:
        config: Figure and alias.

    Returns:
        A completed state that says what was decided and why.

    Raises:
        LatentlineError: If the two cannot be compared; it says what differs.
    """
    tell_mistakes_in_one_message()
    log = get_run_logger()
    with noted_process(Path.cwd(), str(flow_run.id)):
        decision = promote_newest(
            Path(config.workspace).resolve(),
            config.metric,
            alias=config.champion,
            model=config.model,
            dry_run=config.dry_run,
            log=log.info,
        )
    verdict = "promoted" if decision.promoted else "not promoted"
    said = f"{'dry run: ' if config.dry_run else ''}{verdict}: {decision.why}"
    log.info("%s", said)
    shown = f"{said}\n\n[the line in MLflow]({decision.url})"
    create_markdown_artifact(shown, key="promotion", description="Newest line against champion")
    if decision.promoted and not config.dry_run:
        links = {"prefect": run_page(), "mlflow": decision.url}
        notify("promoted", f"{config.champion}: {decision.why}", links, log.warning)
    return Completed(message=said, data=decision)
