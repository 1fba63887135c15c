"""What DVC is told in a project, told in a clone of it too.

    .dvc/config, .dvc/config.local of the project  ->  .dvc/config.local of the clone

Where the cache is, how its files are linked and which remotes there are: git carries the one file
as it was in a commit and the other not at all, and a relative path of either would name another
place from the clone. The settings of the user and of the machine hold there as they are.
"""

from pathlib import Path

from stages.core.errors import LatentlineError

__all__ = ["give_settings"]


def give_settings(root: Path, folder: Path, cache: Path | None = None) -> Path:
    """Write the settings of the project into the clone; earlier ones of the clone go.

    Args:
        root: Of the project.
        folder: Of the clone.
        cache: DVC's cache there, where that is not to be the project's.

    Returns:
        Folder of the cache that the clone uses.

    Raises:
        LatentlineError: If DVC cannot read the settings.
    """
    from dvc.config import Config, ConfigError, merge

    private, own = (each / ".dvc" / Config.CONFIG_LOCAL for each in (root, folder))
    try:
        project = Config(str(root / ".dvc"))
        cache = cache or Path(project["cache"].get("dir") or root / ".dvc" / "cache")
        settings = project.load_one("repo")
        merge(settings, project.load_one("local"))
        settings["cache"]["dir"] = str(cache)
        # Half of one, of a process that was killed, would be refused.
        own.unlink(missing_ok=True)
        if private.is_file():
            # It may hold passwords.
            own.touch(mode=private.stat().st_mode & 0o777)
        # DVC resolves relative paths where it reads them and knows them where it writes them.
        with Config(str(folder / ".dvc")).edit("local") as written:
            merge(written, settings)
    except ConfigError as error:
        raise LatentlineError(
            f"{root / '.dvc'}: DVC must understand its settings: {error}"
        ) from None
    return cache
