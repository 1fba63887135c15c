"""Table and picture of a sweep: best first, pruned and failed told, every axis a panel."""

from dataclasses import replace

import numpy as np
import pandas as pd
from PIL import Image

from pipelines.records.figures import stage_figures
from pipelines.sweeping.file import Sweep
from pipelines.sweeping.results import (
    BranchOutcome,
    best_of,
    failures,
    markdown,
    table_of,
    write_sweep_results,
)
from stages.core.sections import validate
from tests.pipelines.sweeping.test_file import GRID

FIGURE = GRID["objective"]["figure"]


def sweep(direction="lower"):
    search = {"kind": "random", "count": 5, "seed": 0}
    over = {
        "prior.layers": [1, 2],
        "head": [{"kind": "mixture"}, {"kind": "flow"}],
        "train_prior.learning_rate": {"low": 1e-4, "high": 1e-2, "scale": "log"},
        "prior.width": {"low": 8, "high": 64, "scale": "integer"},
        "prior.kind": ["transformer"],
    }
    objective = GRID["objective"] | {"direction": direction}
    change = {"search": search, "over": over, "objective": objective}
    return validate(Sweep, GRID | change, source="a sweep")


def outcome(name, objective, state="finished", why=""):
    values = {
        "prior.layers": 1 + len(name) % 2,
        "head": {"kind": "flow"},
        "train_prior.learning_rate": 1e-3,
        "prior.width": 16,
        "prior.kind": "transformer",
    }
    figures = {FIGURE: objective, "loss": 1.0} if state == "finished" else {}
    return BranchOutcome(name, values, state, objective, figures, 3.14159, "run", why, {})


OUTCOMES = [
    outcome("mid", 30.0),
    outcome("best", 20.0),
    outcome("bad", None, "failed", "train_prior: a|b\ndiverged"),
    outcome("stopped", 15.0, "pruned", "above the median"),
    outcome("worst", 40.0),
]


def test_the_best_comes_first_and_what_did_not_finish_last():
    table = table_of(sweep(), OUTCOMES)
    assert table["experiment"].tolist() == ["best", "mid", "worst", "stopped", "bad"]
    assert table_of(sweep("higher"), OUTCOMES)["experiment"].tolist()[:3] == [
        "worst",
        "mid",
        "best",
    ]
    assert best_of(sweep(), OUTCOMES).experiment == "best", "a pruned one is never the best"
    assert best_of(sweep("higher"), OUTCOMES).experiment == "worst"
    assert best_of(sweep(), OUTCOMES[2:4]) is None


def test_points_that_are_not_valid_fail_a_sweep_only_if_there_are_no_others(tmp_path):
    bad = [replace(outcome(f"bad {n}", None, "failed", "no"), is_valid=False) for n in (1, 2)]
    good, stopped, broken = OUTCOMES[0], OUTCOMES[3], OUTCOMES[2]
    assert failures([*bad, good]) == failures([*bad, stopped]) == failures([]) == []
    assert failures([*bad, good, broken]) == [broken]
    assert failures(bad) == bad
    table = table_of(sweep(), [*bad, good])
    assert table["state"].tolist() == ["finished", "failed", "failed"]
    assert table["why"].tolist() == ["", "no", "no"]
    assert len(write_sweep_results(tmp_path, "mine", sweep(), bad)) == 3, "there is a table of none"


def test_the_table_to_read():
    lines = markdown(sweep(), table_of(sweep(), OUTCOMES)).splitlines()
    assert lines[0].startswith("| experiment | state | prior.layers | head |")
    assert lines[2] == "| best | finished | 1 | flow | 0.001 | 16 | transformer | 20 | 3.1 |  |"
    assert lines[-1].endswith("| train_prior: a\\|b diverged |"), "a line stays a line"
    good = markdown(sweep(), table_of(sweep(), OUTCOMES[:2]))
    assert "why" not in good


def test_sections_of_one_kind_are_told_apart():
    heads = [{"kind": "mixture", "components": 1}, {"kind": "mixture", "components": 8}]
    several = sweep().model_copy(update={"over": {"head": heads}})
    outcomes = [
        BranchOutcome(f"b{n}", {"head": head}, "finished", 1.0 + n, {}, 1.0, None, "", {})
        for n, head in enumerate(heads)
    ]
    assert table_of(several, outcomes)["head"].tolist() == [
        "mixture(components=1)",
        "mixture(components=8)",
    ]


def test_files(tmp_path):
    paths = write_sweep_results(tmp_path / "new", "mine", sweep(), OUTCOMES)
    assert [path.name for path in paths] == ["table.csv", "table.md", "sweep.png"]
    table = pd.read_csv(paths[0])
    assert len(table) == 5 and table["loss"].notna().sum() == 3
    with Image.open(paths[2]) as picture:
        pixels = np.asarray(picture.convert("RGB"))
    assert (pixels != 255).any(axis=2).mean() > 0.01
    assert picture.width > picture.height > 300, "five axes: four panels in a row and one below"


def test_figures_of_a_training_are_those_of_the_kept_step(tmp_path):
    folder = tmp_path / "data" / "prior"
    folder.mkdir(parents=True)
    (folder / "history.csv").write_text("step,loss,nats\n10,3,\n20,2,7.5\n30,1,8\n")
    assert stage_figures(tmp_path, ["data/prior"]) == {"step": 30.0, "loss": 1.0, "nats": 8.0}
    (folder / "manifest.json").write_text('{"about": {"best_step": 20}}')
    assert stage_figures(tmp_path, ["data/prior", "data/none"])["nats"] == 7.5
    (folder / "metrics.json").write_text('{"fid": 2, "words": "x"}')
    assert stage_figures(tmp_path, ["data/prior"])["fid"] == 2.0
