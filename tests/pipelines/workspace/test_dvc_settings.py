"""A branch's DVC works as the project's is set up: its cache, its links, its remotes."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.workspace.branches import Branch, make_branch
from pipelines.workspace.dvc_settings import give_settings
from stages.core.errors import LatentlineError
from tests.pipelines.trivial_line import Line


def branch(line: Line, cache: Path | None = None) -> Branch:
    params = (line.root / "params.yaml").read_text()
    return make_branch(line.root, line.root / ".work" / "far" / "one", params, "x", cache=cache)


def dvc(root: Path, *arguments: str) -> str:
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("level", ["--local", "--global"])
def test_what_is_in_a_cache_elsewhere_is_not_run_again(
    line: Line, level: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(line.root.parent / "home"))
    # DVC writes it down as a path that is relative to the file, but for the global one.
    elsewhere = "../cache of all" if level != "--global" else str(line.root.parent / "cache of all")
    dvc(line.root, "cache", "dir", level, elsewhere)
    line.record()
    assert not (line.root / ".dvc" / "cache").exists()
    shutil.rmtree(line.root / "data")
    made = branch(line)
    said: list[str] = []
    made.python("dvc", "repro", "first", log=said.append, tracked=False)
    assert not any("first begins" in each for each in said), said
    assert Path(dvc(made.folder, "cache", "dir")) == line.root.parent / "cache of all"


def test_links_and_remotes_are_the_projects(line: Line) -> None:
    private = line.root / ".dvc" / "config.local"
    private.write_text(
        "[cache]\n    type = symlink\n[core]\n    remote = mine\n"
        "['remote \"mine\"']\n    url = ../../store of mine\n"
    )
    with (line.root / ".dvc" / "config").open("a") as config:
        config.write("['remote \"ours\"']\n    url = ../../store of ours\n")
        config.write("['remote \"far\"']\n    url = s3://bucket/path\n")
    private.chmod(0o600)
    made = branch(line)
    line.record()
    dvc(line.root, "push", "--quiet", "--remote", "ours")
    assert (line.root.parent / "store of ours").is_dir()
    shutil.rmtree(line.root / ".dvc" / "cache")
    shutil.copy(line.root / "dvc.lock", made.folder)
    dvc(made.folder, "pull", "--remote", "ours", "first")
    assert (made.folder / "data" / "first" / "value.txt").is_symlink()
    dvc(made.folder, "push", "--quiet", "first")
    assert (line.root.parent / "store of mine").is_dir()
    assert (made.folder / ".dvc" / "config.local").stat().st_mode & 0o777 == 0o600
    assert "s3://bucket/path" in dvc(made.folder, "remote", "list")
    private.unlink()
    branch(line)
    text = (made.folder / ".dvc" / "config.local").read_text()
    assert "mine" not in text, "what is gone there is gone here"


def test_a_cache_of_its_own_stays_its_own(line: Line, tmp_path: Path) -> None:
    dvc(line.root, "cache", "dir", "--local", "../cache of all")
    made = branch(line, cache=tmp_path / "own")
    assert dvc(made.folder, "cache", "dir") == str(tmp_path / "own")


def test_settings_that_dvc_does_not_understand_are_named(line: Line, tmp_path: Path) -> None:
    (line.root / ".dvc" / "config.local").write_text("[cache]\n    type = pigeon\n")
    with pytest.raises(LatentlineError, match=r"\.dvc: DVC must understand its settings: .*cache"):
        give_settings(line.root, tmp_path)
