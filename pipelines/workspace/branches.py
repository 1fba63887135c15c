"""Copies of the project that differ in their parameters and share all bytes.

A branch is a clone of the commit at hand with a params.yaml of its own. Its DVC cache is the
project's, so a stage that two branches have in common runs once (the second restores it from the
run cache), and its runs are recorded in the project's MLflow store. Its dvc.lock is the commit's
without the stages whose outputs that cache lacks.
"""

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pipelines.settings.params_overlay import overlaid, read_params
from pipelines.workspace.clones import BranchFailed, clone, git, require_repository
from pipelines.workspace.dvc_settings import give_settings
from pipelines.workspace.lock_entries import keep_cached
from pipelines.workspace.reproduce import stage_environment
from pipelines.workspace.runner import run_command
from stages.core.store import tracking_uri

__all__ = ["Branch", "BranchFailed", "make_branch"]


class Branch:
    """One copy.

    Attributes:
        folder: Its root.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self._environment = environment

    @property
    def params(self) -> str:
        """Text of its params.yaml."""
        return (self.folder / "params.yaml").read_text(encoding="utf-8")

    @params.setter
    def params(self, text: str) -> None:
        (self.folder / "params.yaml").write_text(text, encoding="utf-8")

    def python(
        self, *arguments: str, log: Callable[[str], None], tracked: bool = True
    ) -> tuple[str, ...]:
        """Run `python -m ARGUMENTS` in the branch; returns its last lines.

        Args:
            arguments: Module and its arguments.
            log: Told each line of output.
            tracked: Whether stages record their runs.

        Raises:
            BranchFailed: If it ends with another status than 0.
        """
        environment = dict(self._environment)
        if not tracked:
            environment["LATENTLINE_TRACKING"] = "off"
        done = run_command(
            [sys.executable, "-m", *arguments], log, cwd=self.folder, env=environment
        )
        if done.status != 0:
            lines = "\n".join(line for line in done.tail[-15:] if line)
            raise BranchFailed(
                f"{self.folder}: `python -m {' '.join(arguments)}` ended with exit status "
                f"{done.status}; its last lines:\n{lines}"
            )
        return done.tail

    def git(self, *arguments: str) -> str:
        """Run git in the branch; returns what it says.

        Raises:
            BranchFailed: If it ends with another status than 0.
        """
        return git(self.folder, *arguments)


def make_branch(
    root: Path,
    folder: Path,
    params: str,
    experiment: str,
    *,
    commit: str = "HEAD",
    cache: Path | None = None,
) -> Branch:
    """Clone a commit of the project into `folder`, or go on with the clone that is there.

    Args:
        root: Of the project.
        folder: Of the branch.
        params: Text of its params.yaml.
        experiment: Name of the MLflow experiment its runs belong to.
        commit: Which one; a commit that no branch of git holds any more is found too.
        cache: Its DVC cache, where that is not to be the project's.

    Raises:
        LatentlineError: If no clone can be made of the project, or DVC cannot read its settings.
        BranchFailed: If git cannot clone.
    """
    require_repository(root)
    commit = git(root, "rev-parse", f"{commit}^{{commit}}")
    clone(root, folder)
    # A git that was killed leaves it; whoever works in a branch is alone there.
    (folder / ".git" / "index.lock").unlink(missing_ok=True)
    git(folder, "fetch", "--quiet", "origin")
    git(folder, "checkout", "--quiet", "--force", "--detach", commit)
    keep_cached(folder / "dvc.lock", give_settings(root, folder, cache))
    additions = {
        "MLFLOW_TRACKING_URI": os.environ.get("MLFLOW_TRACKING_URI") or tracking_uri(root),
        "MLFLOW_EXPERIMENT_NAME": experiment,
        "PYTHONPATH": "",
    }
    branch = Branch(folder, stage_environment(additions, removed=("LATENTLINE_PARENT_RUN_ID",)))
    branch.params = overlaid(params, None, _user_paths(params, root, folder))
    return branch


def _user_paths(params: str, root: Path, folder: Path) -> dict[str, Any]:
    """Dotted name -> absolute path of what the project finds and its clone would not: users' files.

    Data sets and weights are named from the project's root and are not in git.
    """

    def anchored(value: Any) -> Any:
        if isinstance(value, list):
            return [anchored(each) for each in value]
        if isinstance(value, dict):
            return {key: anchored(each) for key, each in value.items()}
        if not isinstance(value, str) or not value or (folder / value).exists():
            return value
        return str((root / value).resolve()) if (root / value).exists() else value

    found = {}
    for section, values in read_params(params).items():
        for name, value in values.items() if isinstance(values, dict) else ():
            if (there := anchored(value)) != value:
                found[f"{section}.{name}"] = there
    return found
