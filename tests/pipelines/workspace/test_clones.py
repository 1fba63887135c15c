"""Clones belong to the project they lie in, whatever was moved or copied, and whoever git knows."""

import shutil
import subprocess
from pathlib import Path

import pytest

from pipelines.workspace.branches import Branch, make_branch
from pipelines.workspace.clones import BranchFailed, require_repository
from pipelines.workspace.dvc_experiments import save_experiment
from stages.core.errors import LatentlineError
from tests.pipelines.trivial_line import Line


def branch(root: Path, name: str = "one") -> Branch:
    params = (root / "params.yaml").read_text()
    return make_branch(root, root / ".work" / name, params, "an experiment")


def git(root: Path, *arguments: str) -> str:
    command = ["git", "-c", "user.name=t", "-c", "user.email=t@t", *arguments]
    return subprocess.run(command, cwd=root, check=True, capture_output=True, text=True).stdout


def experiments(root: Path) -> list[str]:
    return git(root, "for-each-ref", "refs/exps").splitlines()


def finished(root: Path) -> Branch:
    made = branch(root)
    made.python("dvc", "repro", "--quiet", "first", log=print, tracked=False)
    save_experiment(made, "one", ["first"], print)
    return made


def test_in_a_project_that_was_moved_its_branches_go_on(line: Line) -> None:
    old = branch(line.root)
    (old.folder / "outcome.json").write_text("{}")
    (old.folder / ".work").mkdir(exist_ok=True)
    (old.folder / ".work" / "checkpoint").write_text("half a training")
    moved = line.root.rename(line.root.with_name("moved"))
    (moved / "stage.py").rename(moved / "staged.py")
    git(moved, "add", "--all")
    git(moved, "commit", "--quiet", "--message", "another name")
    made = branch(moved)
    assert (made.folder / ".work" / "checkpoint").read_text() == "half a training"
    assert (made.folder / "outcome.json").exists()
    assert made.git("rev-parse", "HEAD") == git(moved, "rev-parse", "HEAD").strip()
    assert (made.folder / "staged.py").exists()
    assert not (made.folder / "stage.py").exists(), "files of the commit before are not left"
    assert [each.name for each in made.folder.parent.iterdir() if "building" in each.name] == []


def test_the_branches_of_a_copy_do_not_write_into_the_original(line: Line) -> None:
    finished(line.root)
    before = experiments(line.root)
    assert len(before) == 1
    copy = shutil.copytree(line.root, line.root.with_name("copy"), symlinks=True)
    git(copy, "update-ref", "-d", before[0].split()[-1])
    params = copy / "params.yaml"
    params.write_text(params.read_text().replace("one", "another"))
    made = finished(copy)
    assert experiments(line.root) == before
    assert len(experiments(copy)) == 1
    assert experiments(copy) != before
    shutil.rmtree(line.root)
    assert made.git("fsck", "--connectivity-only") is not None


def test_a_clone_that_was_left_without_git_is_made_whole(line: Line) -> None:
    shutil.rmtree(branch(line.root).folder / ".git")
    assert branch(line.root).git("status", "--porcelain", "--", "stage.py") == ""


def test_a_clone_of_this_project_is_left_as_it_is(line: Line) -> None:
    made = branch(line.root)
    kept = made.folder / ".git" / "kept"
    kept.touch()
    link = line.root.with_name("link")
    link.symlink_to(line.root)
    branch(link)
    assert kept.exists(), "also where the project is reached by another path"


def test_a_shallow_project_has_clones_with_all_they_need(line: Line) -> None:
    shallow = line.root.with_name("shallow")
    git(line.root.parent, "clone", "--quiet", "--depth=1", line.root.as_uri(), str(shallow))
    kept = branch(shallow).folder / ".git" / "kept"
    kept.touch()
    branch(shallow)
    assert kept.exists()


def test_where_git_knows_nobody_experiments_are_saved_all_the_same(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {
        "HOME": str(tmp_path / "nobody"),
        "XDG_CONFIG_HOME": str(tmp_path / "nobody"),
        "GIT_CONFIG_GLOBAL": "/dev/null",
        "GIT_CONFIG_NOSYSTEM": "1",
    }.items():
        monkeypatch.setenv(name, value)
    config = (line.root / ".git" / "config").read_text()
    # Changed files DVC puts aside, which is a commit too.
    line.set(first="{value: another}")
    made = finished(line.root)
    author = ("for-each-ref", "--format=%(authorname)", "refs/exps")
    assert git(line.root, *author).strip() == "Latentline"
    assert (line.root / ".git" / "config").read_text() == config
    # Once there is somebody, it is their experiment, also in a branch that was made before.
    git(line.root, "config", "user.name", "Ada")
    branch(line.root)
    save_experiment(made, "one", ["first"], print)
    assert git(line.root, *author).strip() == "Ada"


def test_what_no_clone_can_be_made_of_is_refused_in_one_message(
    line: Line, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    require_repository(line.root)
    outer = tmp_path / "mono"
    inner = outer / "deep" / "line"
    shutil.copytree(line.root, inner)
    shutil.rmtree(inner / ".git")
    with pytest.raises(LatentlineError, match="must be a git repository with a commit"):
        require_repository(inner)
    git(tmp_path, "init", "--quiet", str(inner))
    with pytest.raises(LatentlineError, match="must be a git repository with a commit"):
        require_repository(inner)
    shutil.rmtree(inner / ".git")
    git(tmp_path, "init", "--quiet", str(outer))
    with pytest.raises(LatentlineError, match="is deep/line/ of a larger one"):
        branch(inner)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(LatentlineError, match="git must be on PATH"):
        require_repository(line.root)
    with pytest.raises(BranchFailed, match="git must be on PATH"):
        Branch(line.root, {}).git("status")
