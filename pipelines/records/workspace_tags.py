"""What a workspace was when a line began: commit, parameters, whether the commit says it all."""

import hashlib
import subprocess
from pathlib import Path

from stages.core.provenance import git_tags, user_name

__all__ = ["CODE_CHANGED", "uncommitted_code", "workspace_tags"]

CODE_CHANGED = "git.code_changed"
"""Tag: `false` if the commit holds the code that ran. Unlike `git.dirty` it says nothing of
params.yaml, which is kept with the run."""


ASIDE = ("params.yaml", "dvc.lock", "pipelines", "tests", "docs", "benchmarks", "*.md")
"""What changes no byte of a line, or is kept with each run."""


def workspace_tags(workspace: Path) -> dict[str, str]:
    """Tags of a line's run.

    Args:
        workspace: Folder of params.yaml.
    """
    git = git_tags(workspace)
    tags = {
        **git,
        "mlflow.user": user_name(),
        "mlflow.source.name": "pipelines",
        "mlflow.source.type": "JOB",
    }
    if git:
        tags["dvc.rev"] = git["mlflow.source.git.commit"]
        changed = uncommitted_code(workspace)
        tags[CODE_CHANGED] = "unknown" if changed is None else str(bool(changed)).lower()
    params = workspace / "params.yaml"
    if params.is_file():
        tags["params.sha256"] = hashlib.sha256(params.read_bytes()).hexdigest()
    return tags


def uncommitted_code(workspace: Path) -> list[str] | None:
    """Files that the commit does not hold as they are; None where git cannot say.

    Tracked files that differ, and Python files that git does not know: the line may import them.
    params.yaml and dvc.lock are kept with each run and are not among them.
    """
    command = ["git", "--no-optional-locks", "status", "--porcelain", "--untracked-files=all"]
    aside = [f":(exclude){path}" for path in ASIDE]
    try:
        done = subprocess.run(
            [*command, "--", ".", *aside],
            cwd=workspace,
            capture_output=True,
            text=True,
            timeout=30,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    lines = done.stdout.splitlines()
    return [line[3:] for line in lines if line[:2] != "??" or line.endswith(".py")]
