"""Comparisons of families: valid members, time turned into steps, outcomes kept, table, sheet."""

import subprocess

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from ruamel.yaml import YAML

from pipelines.comparing import families
from pipelines.comparing.families import (
    Member,
    Outcome,
    compare,
    comparisons,
    read_comparison,
)
from pipelines.comparing.family_sheet import write_results
from pipelines.settings.params_overlay import checked_values, overlaid, preset_path
from pipelines.workspace.branches import BranchFailed, make_branch
from stages.core.errors import ParamsError
from tests.architecture.imports import PROJECT

PARAMS = (PROJECT / "params.yaml").read_text()


def silent(line: str) -> None:
    return


@pytest.mark.parametrize("name", comparisons())
def test_every_member_of_every_comparison_is_valid(name):
    comparison = read_comparison(name)
    base = YAML(typ="safe").load(comparison.changed(PARAMS))
    for what in comparison.members.values():
        for prior in ({}, {"prior": what.own_prior}):
            # As the overlay of whole sections does, of which there are tests, and much faster.
            checked_values({**base, **what.sections, **prior}, what.values)


def written(folder, monkeypatch, name, text):
    monkeypatch.setattr(families, "FOLDER", folder)
    (folder / f"{name}.yaml").write_text(text)


BASE = """
preset: null
autoencoder_seconds: 1.0
prior_seconds: 1.0
members:
  a:
    about: first
    sections: {bottleneck: {kind: fsq, levels: [4]}}
    own_prior: {kind: uniform}
    learned: true
  b: {about: second, sections: {}, own_prior: {kind: uniform}, learned: true}
"""
ADAPTED = """
preset: fashion_vq
autoencoder_seconds: 2.0
prior_seconds: 3.0
members_of: base
values: {VALUES}
members:
  b: {about: another, sections: {}, own_prior: {kind: uniform}, learned: false}
"""


def test_a_comparison_adapts_the_members_of_another(tmp_path, monkeypatch):
    written(tmp_path, monkeypatch, "base", BASE)
    written(
        tmp_path, monkeypatch, "more", ADAPTED.replace("{VALUES}", "{bottleneck.levels: [8, 8]}")
    )
    more = read_comparison("more")
    assert more.changed(PARAMS) == overlaid(PARAMS, preset_path("fashion_vq").read_text(), {})
    assert (more.preset, more.autoencoder_seconds, more.prior_seconds) == ("fashion_vq", 2.0, 3.0)
    assert more.members["a"].sections == {"bottleneck": {"kind": "fsq", "levels": [8, 8]}}
    assert more.members["b"].about == "another" and list(more.members) == ["a", "b"]
    assert read_comparison("base").members["a"].sections["bottleneck"]["levels"] == [4]


def test_a_comparison_changes_its_preset_before_its_members_do(tmp_path, monkeypatch):
    written(tmp_path, monkeypatch, "base", BASE)
    text = "preset_values: {evaluate.max_images: 7}\n" + ADAPTED.replace("{VALUES}", "{}")
    written(tmp_path, monkeypatch, "more", text)
    content = YAML(typ="safe").load(read_comparison("more").changed(PARAMS))
    assert content["evaluate"]["max_images"] == 7


def test_a_member_changes_values_after_its_sections():
    member = Member(
        about="another seed",
        sections={"prior": {"kind": "uniform"}, "bottleneck": {"kind": "fsq", "levels": [4]}},
        values={"seed": 3, "bottleneck.levels": [8]},
        own_prior={"kind": "uniform"},
        learned=False,
    )
    content = YAML(typ="safe").load(member.changed(PARAMS))
    assert (content["seed"], content["prior"]) == (3, {"kind": "uniform"})
    assert content["bottleneck"] == {"kind": "fsq", "levels": [8]}


def test_a_value_that_no_member_has_is_told(tmp_path, monkeypatch):
    written(tmp_path, monkeypatch, "base", BASE)
    written(tmp_path, monkeypatch, "more", ADAPTED.replace("{VALUES}", "{bottleneck.level: 8}"))
    with pytest.raises(ParamsError, match=r"values bottleneck.level: must be a key .* of base has"):
        read_comparison("more")


def test_a_comparison_takes_some_members_of_another_without_their_priors(tmp_path, monkeypatch):
    written(tmp_path, monkeypatch, "base", BASE)
    some = "only: [a]\nlearned: false\n" + ADAPTED.replace("{VALUES}", "{}")
    written(tmp_path, monkeypatch, "some", some[: some.index("members:\n")] + "members: {}\n")
    [(name, member)] = read_comparison("some").members.items()
    assert name == "a" and not member.learned
    written(tmp_path, monkeypatch, "wrong", some.replace("[a]", "[c]"))
    with pytest.raises(ParamsError, match=r"wrong.yaml: only: no member 'c'; there are: a, b"):
        read_comparison("wrong")


def test_comparisons_say_how_they_are_run():
    for name in comparisons():
        lines = (PROJECT / "pipelines/families" / f"{name}.yaml").read_text().splitlines()
        assert lines[0].startswith("# ") and lines[1] == f"# python -m pipelines families {name}"


def test_steps_keep_their_proportions():
    text = families._with_steps(PARAMS, "train_autoencoder", 40)
    section = YAML(typ="safe").load(text)["train_autoencoder"]
    assert (section["steps"], section["warmup_steps"], section["validate_every"]) == (40, 4, 10)


class Clock:
    """A branch whose stages take a known time to start and for each step."""

    params = PARAMS
    start, per_step, ran = 7.0, 0.02, ()

    def __init__(self, folder):
        self.folder = folder

    def python(self, *arguments, log, tracked):
        steps = YAML(typ="safe").load(self.params)["train_prior"]["steps"]
        self.now = getattr(self, "now", 0.0) + self.start + self.per_step * steps
        self.ran += (steps,)
        return ()


def test_the_cost_of_a_step_is_measured_without_the_start(tmp_path, monkeypatch):
    clock = Clock(tmp_path)
    monkeypatch.setattr(families.time, "monotonic", lambda: getattr(clock, "now", 0.0))
    found = families._seconds_per_step(clock, "train_prior", silent)
    assert found == pytest.approx(0.02)
    assert clock.ran == (10, 40, 160, 640), "until the steps take longer than any start varies"
    assert clock.params == PARAMS


def test_the_cost_of_a_step_is_measured_once_for_the_same_params(tmp_path, monkeypatch):
    clock = Clock(tmp_path)
    monkeypatch.setattr(families.time, "monotonic", lambda: getattr(clock, "now", 0.0))
    first = families._seconds_per_step(clock, "train_prior", silent)
    clock.per_step, clock.ran = 0.05, ()
    assert families._seconds_per_step(clock, "train_prior", silent) == first and not clock.ran
    clock.params = overlaid(PARAMS, None, {"seed": 1})
    assert families._seconds_per_step(clock, "train_prior", silent) == pytest.approx(0.05)


def test_unknown_names_are_told():
    with pytest.raises(ParamsError, match="families 'digit': no such file; did you mean 'digits'"):
        read_comparison("digit")
    with pytest.raises(ParamsError, match="families digits: no member 'magic'; there are: plain"):
        compare(PROJECT, "digits", ["magic"], silent)


def outcome(member, folder, learned=True):
    figures = {"mse": 0.01, "frechet_classifier": 2.0, "class_accuracy": 0.5, "code_usage": 1.0}
    return Outcome(
        member, "a member", 40, 1234.5, 20, figures, figures if learned else None, str(folder)
    )


@pytest.fixture
def project(tmp_path):
    """A repository with as much of a project as a branch needs."""
    root = tmp_path / "project"
    (root / ".dvc").mkdir(parents=True)
    (root / ".dvc" / "config").write_text("")
    (root / "dvc.yaml").write_text("stages: {}\n")
    (root / "params.yaml").write_text(PARAMS)
    for command in (
        ["init", "-q"],
        ["add", "-A"],
        ["-c", "user.name=a", "-c", "user.email=a@b", "commit", "-qm", "x", "--allow-empty"],
    ):
        subprocess.run(["git", *command], cwd=root, check=True)
    (root / ".dvc" / "tmp").mkdir()
    return root


def test_finished_members_are_kept(project, monkeypatch):
    ran = []

    def run(branch, member, what, comparison, log):
        ran.append(member)
        return outcome(member, branch.folder)

    monkeypatch.setattr(families, "_run", run)
    monkeypatch.setattr(families, "make_branch", branch_without_dvc)
    for members in (["plain"], ["plain", "vae"]):
        found = compare(project, "digits", members, silent)
        assert [each.member for each in found] == members
    assert ran == ["plain", "vae"]
    (project / "params.yaml").write_text(PARAMS.replace("seed: 0", "seed: 1"))
    compare(project, "digits", ["vae"], silent)
    assert ran == ["plain", "vae", "vae"], "other parameters, another outcome"


def branch_without_dvc(root, folder, params, experiment):
    folder.mkdir(parents=True, exist_ok=True)
    return type("Branch", (), {"folder": folder})()


def test_a_branch_has_its_own_parameters_and_the_projects_cache(project, tmp_path):
    for seed in (3, 4):
        text = PARAMS.replace("seed: 0", f"seed: {seed}")
        branch = make_branch(project, tmp_path / "branch", text, "an experiment")
        assert branch.params == text, "made, and made again over the first"
    assert (project / "params.yaml").read_text() == PARAMS
    assert str(project / ".dvc" / "cache") in (branch.folder / ".dvc/config.local").read_text()
    assert branch.python("compileall", "-q", "nothing", log=silent) is not None
    with pytest.raises(BranchFailed, match=r"`python -m nonsense` ended with exit status 1"):
        branch.python("nonsense", log=silent)


def test_a_branch_survives_a_git_that_was_killed(project, tmp_path):
    half = tmp_path / ".branch.building" / ".git"
    half.mkdir(parents=True)
    branch = make_branch(project, tmp_path / "branch", PARAMS, "an experiment")
    assert not half.exists()
    (branch.folder / ".git" / "index.lock").touch()
    assert make_branch(project, tmp_path / "branch", PARAMS, "an experiment").params == PARAMS


def test_a_branch_finds_what_users_named_from_the_projects_root(project, tmp_path):
    weights = tmp_path / "shared" / "weights.pth"
    weights.parent.mkdir()
    weights.touch()
    (project / "mine").mkdir()
    text = (
        "dataset: {path: mine, watch: params.yaml, kind: pipelines-to-be}\n"
        "evaluate: {networks: [{weights: ../shared/weights.pth}], lpips_weights: ''}\n"
    )
    branch = make_branch(project, tmp_path / "far" / "away", text, "an experiment")
    sections = YAML(typ="safe").load(branch.params)
    assert sections["dataset"] == {
        "path": str(project / "mine"),
        "watch": "params.yaml",
        "kind": "pipelines-to-be",
    }, "what git holds, and what is no path, stays"
    assert sections["evaluate"]["networks"] == [{"weights": str(weights)}]


def test_table_and_sheet(tmp_path):
    outcomes = []
    for member, learned in (("one", True), ("two", False)):
        folder = tmp_path / member
        (folder / "data/metrics").mkdir(parents=True)
        (folder / ".work/shown").mkdir(parents=True)
        Image.new("RGB", (60, 40)).save(folder / "data/metrics/reconstructions.png")
        for name in ("own", "learned") if learned else ("own",):
            images = np.zeros((12, 1, 8, 8), np.uint8)
            np.save(folder / ".work/shown" / f"{name}.npy", images)
        outcomes.append(outcome(member, folder, learned))
    table = write_results(tmp_path / "results", outcomes)
    assert table["frechet_own"].tolist() == [2.0, 2.0]
    assert np.isnan(table["frechet_learned"].iloc[1])
    assert table["mig"].isna().all()
    assert len(pd.read_csv(tmp_path / "results/table.csv")) == 2
    lines = (tmp_path / "results/table.md").read_text().splitlines()
    assert lines[0].startswith("| member | steps |") and lines[2].startswith("| one | 40 | 1234 |")
    assert "mig" not in lines[0], "what no member has is no column"
    write_results(tmp_path / "alone", outcomes[1:])
    with Image.open(tmp_path / "results/sheet.png") as sheet:
        assert sheet.width > 600 and sheet.height > 100
        with Image.open(tmp_path / "alone/sheet.png") as alone:
            assert alone.width < sheet.width, "no room for what nobody made"
