"""A commit says it all, or it does not; parameters and tests change nothing about that."""

from pathlib import Path

import pytest

from pipelines.records.workspace_tags import uncommitted_code, workspace_tags
from pipelines.workspace.clones import head_commit
from stages.core.errors import LatentlineError
from tests.pipelines.trivial_line import Line


def test_what_the_commit_does_not_hold(line: Line, tmp_path: Path) -> None:
    assert uncommitted_code(line.root) == []
    line.set(first="{value: other}")
    (line.root / "tests").mkdir()
    for aside in ("dvc.lock", "notes.txt", "README.md", "tests/test_x.py"):
        (line.root / aside).write_text("x")
    assert uncommitted_code(line.root) == []
    assert workspace_tags(line.root)["git.code_changed"] == "false"
    assert workspace_tags(line.root)["git.dirty"] == "true"
    (line.root / "member.py").write_text("")
    (line.root / "stage.py").write_text("")
    assert sorted(uncommitted_code(line.root) or []) == ["member.py", "stage.py"]
    assert workspace_tags(line.root)["git.code_changed"] == "true"


def test_outside_git_nothing_is_claimed(tmp_path: Path) -> None:
    assert uncommitted_code(tmp_path) is None
    assert "git.code_changed" not in workspace_tags(tmp_path)


def test_branches_need_a_commit(line: Line, tmp_path: Path) -> None:
    assert head_commit(line.root, "sweep") == workspace_tags(line.root)["dvc.rev"]
    with pytest.raises(LatentlineError, match="sweep: .* must be a git repository with a commit"):
        head_commit(tmp_path, "sweep")
