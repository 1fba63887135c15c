"""The order of the stages follows from who writes what another reads."""

import textwrap
from pathlib import Path

import pytest

from pipelines.workspace.stage_graph import stage_order, stages_with_upstream
from stages.core.errors import ParamsError
from tests.line.repository import STAGES
from tests.pipelines.trivial_line import PROJECT, Line


def order(folder: Path, text: str) -> dict[str, list[str]]:
    (folder / "dvc.yaml").write_text(textwrap.dedent(text))
    return stage_order(folder)


def test_order_does_not_depend_on_the_order_in_the_file(line: Line) -> None:
    assert stage_order(line.root) == {"first": [], "second": ["first"], "third": ["second"]}
    assert list(stage_order(line.root)) == ["first", "second", "third"]


def test_paths_meet_inside_folders_and_through_working_directories(tmp_path: Path) -> None:
    graph = order(
        tmp_path,
        """
        stages:
          last: {cmd: x, deps: [data/b/file.txt, data/plots, m.json]}
          a: {cmd: x, wdir: data, outs: [{a: {cache: false}}]}
          b: {cmd: x, deps: [./data/a/], outs: [data/b], metrics: [{m.json: {cache: false}}]}
          c: {cmd: x, plots: [data/plots/loss.csv]}
          alone: {cmd: x, deps: [data/bb]}
        """,
    )
    assert graph == {"a": [], "b": ["a"], "c": [], "last": ["b", "c"], "alone": []}


def test_targets_bring_what_they_depend_on(line: Line) -> None:
    graph = stage_order(line.root)
    assert stages_with_upstream(graph, ["second"]) == ["first", "second"]
    assert stages_with_upstream(graph, []) == ["first", "second", "third"]
    with pytest.raises(ParamsError, match="did you mean 'second'"):
        stages_with_upstream(graph, ["secnd"])


def test_circles_and_templates_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="need each other"):
        order(
            tmp_path,
            """
            stages:
              a: {cmd: x, deps: [b], outs: [a]}
              b: {cmd: x, deps: [a], outs: [b]}
            """,
        )
    with pytest.raises(ParamsError, match="foreach"):
        order(tmp_path, "stages: {a: {foreach: [1], do: {cmd: x}}}")
    with pytest.raises(ParamsError, match="no such file"):
        stage_order(tmp_path / "nowhere")


def test_the_line_of_this_project() -> None:
    graph = stage_order(PROJECT)
    assert set(graph) == set(STAGES)
    assert next(iter(graph)) == "prepare"
    assert list(graph)[-1] == "evaluate"
    assert stages_with_upstream(graph, ["train_prior"]) == [
        "prepare",
        "train_autoencoder",
        "encode",
        "train_prior",
    ]
