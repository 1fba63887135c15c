"""Clones of the project that share its objects, and that go on being clones of this project.

    .git/config                    origin: the project, to which experiments are pushed
    .git/objects/info/alternates   where the project's objects are

Both are absolute. After a project was moved its clones would find no objects; in a copy of it, they
would push into the original. So a clone of another folder than the project's is given a `.git` of
this one; all else that is in it (outcomes, checkpoints, records) stays.
"""

import shutil
import subprocess
from pathlib import Path

from stages.core.errors import LatentlineError

__all__ = ["BranchFailed", "clone", "git", "head_commit", "require_repository"]

IDENTITY = {"user.name": "Latentline", "user.email": "latentline@localhost"}
"""Whose commits a clone makes where git knows nobody; DVC's experiments are commits."""


class BranchFailed(LatentlineError):
    """A command in a branch did not end well; the message holds its last lines."""


def git(folder: Path, *arguments: str) -> str:
    """Run git in a folder; returns what it says.

    Raises:
        BranchFailed: If it ends with another status than 0, or there is none.
    """
    try:
        done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True)
    except FileNotFoundError:
        if shutil.which("git"):
            raise
        raise BranchFailed("git must be on PATH: branches are clones of the project") from None
    if done.returncode != 0:
        raise BranchFailed(f"{folder}: git {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout.strip()


def require_repository(root: Path) -> None:
    """Refuse a project of which no clones can be made.

    Args:
        root: Of the project.

    Raises:
        LatentlineError: If git is missing, or the project is not the whole of a git repository
            that has a commit.
    """
    try:
        below = git(root, "rev-parse", "--show-prefix")
        if not below:
            git(root, "rev-parse", "--verify", "HEAD^{commit}")
    except BranchFailed as error:
        raise LatentlineError(
            f"{root} must be a git repository with a commit, of which branches are clones: {error}"
        ) from None
    if below:
        raise LatentlineError(
            f"{root} must be the top of a git repository, of which branches are clones; it is "
            f"{below} of a larger one: give the project a repository of its own (git init)"
        )


def head_commit(root: Path, what: str) -> str:
    """The commit that branches of the project are clones of.

    Args:
        root: Of the project.
        what: Who makes branches, for the message.

    Raises:
        LatentlineError: If no clones can be made of the project.
    """
    try:
        require_repository(root)
    except LatentlineError as error:
        raise LatentlineError(f"{what}: {error}") from None
    return git(root, "rev-parse", "HEAD")


def clone(root: Path, folder: Path) -> None:
    """Make `folder` a clone of the project, without files yet, unless it is one already.

    Args:
        root: Of the project.
        folder: What is in it besides a `.git` stays.

    Raises:
        BranchFailed: If git cannot clone.
    """
    if not _is_clone_of(root, folder):
        _clone(root, folder)
    for name, usual in IDENTITY.items():
        git(folder, "config", name, _setting(root, name) or usual)


def _is_clone_of(root: Path, folder: Path) -> bool:
    place = folder / ".git"
    if not place.is_dir():
        return False
    origin = _setting(folder, "remote.origin.url", "--file", str(place / "config"))
    alternates = place / "objects" / "info" / "alternates"
    # Of a shallow repository git makes clones that have all objects themselves.
    shared = alternates.read_text(encoding="utf-8").splitlines() if alternates.is_file() else []
    objects = (root / git(root, "rev-parse", "--git-path", "objects")).resolve()
    return (
        origin is not None
        and Path(origin).resolve() == root.resolve()
        and all(Path(each).resolve() == objects for each in shared)
    )


def _setting(folder: Path, name: str, *where: str) -> str | None:
    try:
        return git(folder, "config", *where, "--get", name)
    except BranchFailed:
        return None


def _clone(root: Path, folder: Path) -> None:
    """All or nothing: into half a clone git would not clone again."""
    building = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(building, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    git(root, "clone", "--quiet", "--shared", "--no-checkout", str(root), str(building))
    if not folder.is_dir():
        building.replace(folder)
        return
    foreign = folder / ".git"
    if foreign.exists():
        # By it git knows which files are its own, and those it need not write again.
        if (foreign / "index").is_file():
            shutil.copyfile(foreign / "index", building / ".git" / "index")
        foreign.replace(building / "foreign")
    (building / ".git").replace(foreign)
    shutil.rmtree(building)
