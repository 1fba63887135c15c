"""A finished branch as an experiment of DVC: `dvc exp show` in the project lists it.

The branch is a clone, so two ordinary commands do it: `dvc exp save` there writes a commit with its
params.yaml and dvc.lock upon the commit it is a clone of, `dvc exp push` carries that to its
origin, the project. The bytes are in the shared cache already. `dvc exp run --temp` would make
experiments by itself, but runs a whole line at once: stages that branches share would run in each
of them before any has finished.
"""

from collections.abc import Callable

from pipelines.branches import Branch

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
        BranchFailed: If DVC refuses.
    """
    dvc = ("dvc", "--wait-for-lock", "exp")
    branch.python(*dvc, "save", "--force", "--name", name, *stages, log=log)
    branch.python(*dvc, "push", "--force", "--no-cache", "origin", name, log=log)
