"""A finished branch as an experiment of DVC: `dvc exp show` in the project lists it.

The branch is a clone, so it takes two steps: `dvc exp save` there writes a commit with its
params.yaml and dvc.lock upon the commit it is a clone of, under a reference `refs/exps/...`, and
git carries the reference to the project, as `dvc exp push` would in many times the time. The bytes
are in the shared cache already. What the commit's dvc.lock says of stages the branch has not run is
left out: it is of other parameters, and DVC would look for bytes that may be nowhere on this
machine (a fresh clone has the lock and no cache).

`dvc exp run --temp` would make experiments by itself, but runs a whole line at once: stages that
branches share would run in each of them before any has finished.
"""

from collections.abc import Callable

from pipelines.workspace.branches import Branch, BranchFailed
from pipelines.workspace.lock_entries import keep_entries

__all__ = ["save_experiment"]


def save_experiment(
    branch: Branch, name: str, stages: list[str], log: Callable[[str], None]
) -> None:
    """Make the branch an experiment of the project; one of the same name is replaced.

    Args:
        branch: Whose stages are up to date.
        name: Of the experiment.
        stages: Those that ran.
        log: Told what DVC says.

    Raises:
        BranchFailed: If DVC or git refuses.
    """
    keep_entries(branch.folder / "dvc.lock", lambda stage, _: stage in stages)
    save = ("dvc", "--wait-for-lock", "exp", "save", "--force", "--name", name)
    branch.python(*save, *stages, log=log)
    references = branch.git("for-each-ref", "--format=%(refname)", "refs/exps").splitlines()
    its = [reference for reference in references if reference.endswith(f"/{name}")]
    if not its:
        raise BranchFailed(f"{branch.folder}: dvc exp save left no experiment {name}")
    branch.git("push", "--quiet", "--force", "origin", *(f"{each}:{each}" for each in its))
