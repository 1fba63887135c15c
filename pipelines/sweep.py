"""Many lines that differ in some parameters, what they share computed once: the flow `sweep`.

    python -m pipelines sweep NAME          a file pipelines/sweeps/NAME.yaml

Before anything runs every branch is resolved and checked, and the distinct executions of each stage
are counted (`pipelines.workspace.stage_keys`). Then, stage after stage, what several branches need
runs once, in the folder of the first of them; then the branches run to their ends, side by side
(`pipelines.sweeping.run`). They are clones that share one DVC cache
(`pipelines.workspace.branches`), so what is there already is restored and not computed. Killed and
run again, a sweep goes on with what is missing: finished branches are kept, stages go on from their
checkpoints, records are gone on with.

What came of it stands in `.work/sweeps/NAME` (table, picture), in MLflow (sweep > branch > stage),
and as experiments in `dvc exp show`. The winner is taken over by hand: its values into params.yaml,
and the line restores all of it from the cache.
"""

import json
import os
import shlex
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.runtime import flow_run
from pydantic import BaseModel

from pipelines.machine.notify import tell_of_crash, tell_of_failure
from pipelines.machine.prefect_setup import noted_process, require_limit
from pipelines.records.run_page import publish_sweep
from pipelines.records.workspace_tags import uncommitted_code
from pipelines.settings.line_config import SweepConfig
from pipelines.settings.one_message import tell_mistakes_in_one_message
from pipelines.sweeping.branch import SweepPlace
from pipelines.sweeping.pruning import Curves
from pipelines.sweeping.record import SweepRecord
from pipelines.sweeping.results import (
    BranchOutcome,
    best_of,
    failures,
    markdown,
    table_of,
    write_sweep_results,
)
from pipelines.sweeping.run import SweepRun
from pipelines.sweeping.setup import PreparedSweep, prepare_sweep
from pipelines.two_stage import run_tags
from pipelines.workspace.clones import head_commit, require_repository
from pipelines.workspace.lock import hold
from stages.core.errors import LatentlineError, ParamsError

__all__ = ["SweepFailed", "SweepResult", "sweep"]


class SweepFailed(LatentlineError):
    """Some branches failed; the others are done."""


class SweepResult(BaseModel):
    """What a sweep came to."""

    table: str
    """Of all branches, Markdown."""
    best: str | None
    """Name of the best branch."""
    take_over: str | None
    """The command that makes the workspace what the best branch is, out of the cache."""
    files: list[str]
    record_url: str | None
    """The run in MLflow."""


@flow(
    name="sweep",
    persist_result=False,
    on_failure=[tell_of_failure],
    on_crashed=[tell_of_crash],
)
def sweep(config: SweepConfig) -> SweepResult:
    """Run what is missing of a sweep.

    Args:
        config: Which, and how.

    Returns:
        The table, and the best branch.

    Raises:
        ParamsError: If anything in it is not valid, before anything runs.
        LatentlineError: If no branches can be made of the project, which are clones.
        SweepFailed: If branches failed; the others are done and kept.
    """
    tell_mistakes_in_one_message()
    log = get_run_logger()
    prepared = prepare_sweep(config)
    require_repository(prepared.root)
    for line in prepared.plan():
        log.info(line)
    if config.slots:
        require_limit(config.slots)
    if prepared.sweep.pruning and os.environ.get("LATENTLINE_TRACKING", "").lower() == "off":
        raise ParamsError(
            f"sweep {prepared.name}: pruning reads the journals of stages, and "
            "LATENTLINE_TRACKING=off keeps none; unset it, or set pruning: null"
        )
    if changed := uncommitted_code(prepared.root):
        log.warning("the branches do not have the uncommitted %s", ", ".join(changed[:5]))
    holder = f"run {flow_run.name}"
    with (
        noted_process(Path.cwd(), str(flow_run.id)),
        hold(prepared.folder / "sweep.lock", holder, log.info) as lock,
    ):
        return _run(prepared, config, lock)


def _run(prepared: PreparedSweep, config: SweepConfig, lock: int) -> SweepResult:
    log = get_run_logger()
    record = SweepRecord(prepared.root, prepared.file, prepared.name, prepared.folder)
    tags = run_tags()
    axes = prepared.sweep.model_dump(mode="json", include={"over", "search", "objective"})
    record.begin(axes | {"set": dict(prepared.under_all)}, tags)
    rule = prepared.sweep.pruning
    place = SweepPlace(
        prepared.root,
        prepared.folder,
        prepared.sweep,
        head_commit(prepared.root, "sweep"),
        prepared.graph,
        prepared.outputs,
        record,
        tags,
        config.timeout_minutes,
        lock,
        Curves(rule) if rule else None,
    )
    run = SweepRun(prepared, place, config, log.info)
    files: list[Path] = []
    status = "KILLED"
    try:
        run.to_end()
        status = "FAILED" if failures(list(run.outcomes.values())) else "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        outcomes = list(run.outcomes.values())
        if outcomes:
            files = write_sweep_results(prepared.folder, prepared.name, prepared.sweep, outcomes)
        record.finish(status, _metrics(prepared, outcomes), files)
    return _result(prepared, record, outcomes, files)


def _result(
    prepared: PreparedSweep,
    record: SweepRecord,
    outcomes: list[BranchOutcome],
    files: list[Path],
) -> SweepResult:
    log = get_run_logger()
    table = markdown(prepared.sweep, table_of(prepared.sweep, outcomes))
    picture = next((path for path in files if path.suffix == ".png"), None)
    publish_sweep(table, picture, record.url, log.warning)
    if failed := failures(outcomes):
        raise SweepFailed(_what_failed(prepared.name, failed, len(outcomes)))
    best = best_of(prepared.sweep, outcomes)
    return SweepResult(
        table=table,
        best=best.experiment if best else None,
        take_over=_take_over(prepared, best) if best else None,
        files=[str(path.relative_to(prepared.root)) for path in files],
        record_url=record.url,
    )


def _what_failed(name: str, failed: list[BranchOutcome], count: int) -> str:
    told = [f"{each.experiment}: {each.why}" for each in failed[:3]]
    heading = f"sweep {name}: {len(failed)} of {count} branches failed"
    again = "run it again to try them again"
    if not failed[0].is_valid:
        again = "Optuna has chosen no point that is valid; change `over` or what stands under it"
    return "\n".join([f"{heading}; {again}", *told])


def _take_over(prepared: PreparedSweep, best: BranchOutcome) -> str:
    values = {**prepared.under_all, **best.values}
    preset = ["--preset", prepared.sweep.preset] if prepared.sweep.preset else []
    given = [
        word for name, value in values.items() for word in ("--set", f"{name}={json.dumps(value)}")
    ]
    stages = ["--stages", *prepared.sweep.stages] if prepared.sweep.stages else []
    return shlex.join(["python", "-m", "pipelines", "run", *preset, *given, *stages])


def _metrics(prepared: PreparedSweep, outcomes: list[BranchOutcome]) -> dict[str, float]:
    states = [each.state for each in outcomes]
    counts = {
        f"branches.{state}": float(states.count(state))
        for state in ("finished", "pruned", "failed")
    }
    best = best_of(prepared.sweep, outcomes)
    if best and best.objective is not None:
        counts[f"best.{prepared.sweep.objective.figure}"] = best.objective
    return counts
