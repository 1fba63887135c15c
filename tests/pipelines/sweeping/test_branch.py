"""A branch tells that a figure is missing as soon as the stage that should have it has run."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from pipelines.sweeping import branch as sweep_branch
from pipelines.sweeping.accelerators import ANY
from pipelines.sweeping.branch import BranchLine, SweepPlace
from pipelines.sweeping.file import Pruning
from pipelines.sweeping.plan import PlannedBranch
from pipelines.sweeping.pruning import Curves
from stages.core.errors import ParamsError

GRAPH = {"first": [], "second": ["first"], "third": ["second"]}
OUTPUTS = {stage: [f"data/{stage}"] for stage in GRAPH}


class Workshop:
    """Takes the place of DVC and MLflow: a stage that runs leaves its history."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.root, self.ran = root, list[str]()
        record = SimpleNamespace(
            run_id="run",
            environment=dict,
            removed=[],
            stage_finished=lambda stage, seconds: SimpleNamespace(executed=True),
        )
        monkeypatch.setattr(sweep_branch, "make_branch", self._make_branch)
        monkeypatch.setattr(sweep_branch, "reproduce", self._reproduce)
        monkeypatch.setattr(sweep_branch.LineRecord, "open", lambda *given, **more: record)

    def _make_branch(self, root: Path, folder: Path, *given: Any, **more: Any) -> Any:
        folder.mkdir(parents=True, exist_ok=True)
        return SimpleNamespace(folder=folder)

    def _reproduce(self, stage: str, folder: Path, *given: Any, **more: Any) -> None:
        self.ran.append(stage)
        (folder / "data" / stage).mkdir(parents=True)
        (folder / "data" / stage / "history.csv").write_text("step,loss,nats\n10,2.0,3.0\n")

    def line(self, name: str, objective: str, curves: Curves | None = None) -> BranchLine:
        judged = SimpleNamespace(stage="second", figure=objective, model_dump=dict)
        rule = curves and RULE
        place = SweepPlace(
            root=self.root,
            folder=self.root,
            sweep=SimpleNamespace(objective=judged, pruning=rule),  # type: ignore[arg-type]
            commit="c0ffee",
            graph=GRAPH,
            outputs=OUTPUTS,
            record=SimpleNamespace(experiment="e", branch_tags={}),  # type: ignore[arg-type]
            tags={},
            timeout_minutes=1.0,
            lock=0,
            curves=curves,
        )
        keys = {stage: f"{stage} of {name}" for stage in GRAPH}
        return BranchLine(place, PlannedBranch(name, {}, "seed: 0\n", keys, ""))


RULE = Pruning(stage="first", figure="natz", from_step=10, peers=1)


@pytest.fixture
def workshop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Workshop:
    return Workshop(tmp_path, monkeypatch)


def test_a_figure_that_its_stage_does_not_have_ends_the_branch_there(workshop: Workshop) -> None:
    line = workshop.line("b1", "natz")
    with pytest.raises(
        ParamsError,
        match="objective.figure: must be one that second writes; got 'natz', did you mean 'nats'",
    ):
        line.advance(list(GRAPH), print, ANY)
    assert workshop.ran == ["first", "second"], "what comes after may take hours"
    workshop.line("b2", "nats").advance(list(GRAPH), print, ANY)
    assert workshop.ran[2:] == list(GRAPH)


def test_pruning_by_a_figure_that_nobody_has_is_no_silent_none(workshop: Workshop) -> None:
    with pytest.raises(ParamsError, match="pruning.figure: must be one that first .* loss, nats"):
        workshop.line("b1", "nats", Curves(RULE)).advance(list(GRAPH), print, ANY)
    assert workshop.ran == ["first"]
    curves = Curves(RULE)
    curves.put("group", "of a branch of another kind", {10: 1.0})
    workshop.line("b2", "nats", curves).advance(list(GRAPH), print, ANY)
    assert workshop.ran[1:] == list(GRAPH), "where others have it, it is no mistake"
