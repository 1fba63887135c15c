"""Branches: parameters of their own, the project's cache, users' files found, kills survived."""

import subprocess

import pytest
from ruamel.yaml import YAML

from pipelines.workspace.branches import BranchFailed, make_branch
from tests.architecture.imports import PROJECT

PARAMS = (PROJECT / "params.yaml").read_text()


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


def test_a_branch_has_its_own_parameters_and_the_projects_cache(project, tmp_path):
    for seed in (3, 4):
        text = PARAMS.replace("seed: 0", f"seed: {seed}")
        branch = make_branch(project, tmp_path / "branch", text, "an experiment")
        assert branch.params == text, "made, and made again over the first"
    assert (project / "params.yaml").read_text() == PARAMS
    assert str(project / ".dvc" / "cache") in (branch.folder / ".dvc/config.local").read_text()
    assert branch.python("compileall", "-q", "nothing", log=print) is not None
    with pytest.raises(BranchFailed, match=r"`python -m nonsense` ended with exit status 1"):
        branch.python("nonsense", log=print)


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
