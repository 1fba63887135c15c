"""What a run of the line can be told, as Prefect's form and as the command line give it."""

from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["ACCELERATORS", "LineConfig", "StagesConfig", "SweepConfig"]

ACCELERATORS = r"^[\w/-]+(,[\w/-]+)*$"
"""Numbers, or the long names that `nvidia-smi -L` tells."""


class _Changes(BaseModel):
    """What a run does to params.yaml before it begins."""

    preset: str | None = Field(
        default=None,
        description="Preset to write into params.yaml first: a file of pipelines/presets.",
    )
    set: dict[str, Any] = Field(
        default_factory=dict,
        description='Single values to write into params.yaml, e.g. {"train_prior.steps": 2000}.',
    )
    force: bool = Field(
        default=False,
        description="Run the named stages (empty: every stage) though nothing changed.",
    )


class _Which(BaseModel):
    """What is brought up to date, and where."""

    stages: list[str] = Field(
        default_factory=list,
        description="Stages to bring up to date, with all they depend on; empty: every stage.",
    )
    workspace: str = Field(
        default=".", description="Folder of dvc.yaml and params.yaml; seen from the project root."
    )


class _Patience(BaseModel):
    """How long it may take and how often it is tried."""

    timeout_minutes: float = Field(
        default=240, gt=0, description="A stage that takes longer is stopped; it can go on later."
    )
    retries: int = Field(
        default=2,
        ge=0,
        description="Further tries for what was interrupted, killed, or found DVC busy.",
    )
    retry_delays_seconds: list[float] = Field(
        default=[30, 120], min_length=1, description="Waits before each further try."
    )


class _WhichSweep(BaseModel):
    """Which sweep, and how many of its branches at once."""

    name: str = Field(description="A file of pipelines/sweeps.")
    set: dict[str, Any] = Field(
        default_factory=dict,
        description='Values under all branches, e.g. {"train_prior.steps": 1000}.',
    )
    parallel: int | None = Field(
        default=None, gt=0, description="Branches side by side; empty: as the file has it."
    )
    slots: str | None = Field(
        default=None,
        description="Prefect's global concurrency limit (e.g. gpu) of which every branch at work "
        "takes one slot; empty: none.",
    )
    accelerators: list[Annotated[str, Field(pattern=ACCELERATORS)]] = Field(
        default_factory=list,
        description='Accelerators as CUDA_VISIBLE_DEVICES names them, e.g. ["0", "1"]; '
        '"2,3" are two for one branch. Every branch at work has one of these for itself. '
        "Empty: all branches see all.",
    )
    workspace: str = Field(default=".", description="Folder of dvc.yaml of the project.")


# A form shows the fields of the last base first.
class StagesConfig(_Patience, _Which):
    """Which stages, and how patiently. The numbers of the run itself stand in params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    stage_timeout_minutes: dict[str, float] = Field(
        default_factory=dict,
        description='Other limits for single stages, e.g. {"train_autoencoder": 1440}.',
    )


class LineConfig(StagesConfig, _Changes):
    """How to run the line, with changes of params.yaml."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SweepConfig(_Patience, _WhichSweep):
    """Which sweep, and how it is run."""

    model_config = ConfigDict(extra="forbid", frozen=True)
