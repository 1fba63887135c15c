"""Comparisons of families: outcomes kept, table, sheet."""

import subprocess

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipelines.comparing import families
from pipelines.comparing.families import Outcome, compare
from pipelines.comparing.family_sheet import write_results
from stages.core.errors import LatentlineError, ParamsError
from tests.architecture.imports import PROJECT

PARAMS = (PROJECT / "params.yaml").read_text()


def test_an_unknown_member_is_told():
    with pytest.raises(ParamsError, match="families digits: no member 'magic'; there are: plain"):
        compare(PROJECT, "digits", ["magic"], print)


def outcome(member, folder, learned=True):
    figures = {"mse": 0.01, "frechet_classifier": 2.0, "class_accuracy": 0.5, "code_usage": 1.0}
    return Outcome(
        member, "a member", 40, 1234.5, 20, figures, figures if learned else None, str(folder)
    )


def committed(root, message):
    for command in (["add", "-A"], ["commit", "-q", "-m", message]):
        user = ["-c", "user.name=t", "-c", "user.email=t@t"]
        subprocess.run(["git", *user, *command], cwd=root, check=True)


@pytest.fixture
def project(tmp_path):
    """A repository with a params.yaml and a piece of code."""
    (tmp_path / "params.yaml").write_text(PARAMS)
    (tmp_path / "stage.py").write_text("")
    (tmp_path / ".gitignore").write_text(".work/\n")
    subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
    committed(tmp_path, "first")
    return tmp_path


def test_outcomes_of_other_code_are_not_todays(project, monkeypatch):
    ran, said = [], []

    def run(branch, member, what, comparison, log):
        ran.append(branch.commit)
        return outcome(member, "a folder")

    monkeypatch.setattr(families, "_run", run)
    monkeypatch.setattr(families, "make_branch", branch_without_dvc)
    for _ in range(2):
        compare(project, "digits", ["plain"], said.append)
    assert len(ran) == 1 and not any("uncommitted" in line for line in said)
    (project / "stage.py").write_text("faster = True\n")
    compare(project, "digits", ["plain"], said.append)
    assert len(ran) == 1, "what git does not have is not in a clone"
    assert said[-1] == "warning: the branches do not have the uncommitted stage.py"
    committed(project, "faster")
    compare(project, "digits", ["plain"], said.append)
    assert len(ran) == 2 and ran[0] != ran[1]


def test_without_a_commit_there_is_nothing_to_compare(tmp_path):
    (tmp_path / "params.yaml").write_text(PARAMS)
    with pytest.raises(LatentlineError, match="families digits: .* must be a git repository"):
        compare(tmp_path, "digits", ["plain"], print)


def test_finished_members_are_kept(project, monkeypatch):
    tmp_path, ran = project, []

    def run(branch, member, what, comparison, log):
        ran.append(member)
        return outcome(member, "where the project was before")

    monkeypatch.setattr(families, "_run", run)
    monkeypatch.setattr(families, "make_branch", branch_without_dvc)
    for members in (["plain"], ["plain", "vae"]):
        found = compare(tmp_path, "digits", members, print)
        assert [each.member for each in found] == members
        for each in found:
            assert each.folder == str(tmp_path / ".work" / "families" / "digits" / each.member)
    assert ran == ["plain", "vae"]
    (tmp_path / "params.yaml").write_text(PARAMS.replace("seed: 0", "seed: 1"))
    compare(tmp_path, "digits", ["vae"], print)
    assert ran == ["plain", "vae", "vae"], "other parameters, another outcome"


def branch_without_dvc(root, folder, params, experiment, *, commit):
    folder.mkdir(parents=True, exist_ok=True)
    return type("Branch", (), {"folder": folder, "commit": commit})()


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
