"""Artifacts of a project that was moved or copied are looked for, and put, where they are now.

MLflow's SQLite store keeps absolute addresses of artifacts. When a project moves, the store and
`mlartifacts` move with it, and the addresses do not: pictures are not found, and new ones are
written to where the project was, into the original where it was copied. MLflow has no call that
changes an address, so its tables are told.
"""

import sqlite3
from contextlib import closing
from pathlib import Path

__all__ = ["ARTIFACTS", "PATIENCE", "follow_move"]

ARTIFACTS = "mlartifacts"
PATIENCE = 30.0
"""Seconds for which a SQLite store may be locked by others."""
_ADDRESSES = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)


def follow_move(database: Path, root: Path, location: str) -> None:
    """Let all addresses below the folder of artifacts that was begin with the one that is.

    Nothing is done for a store or artifacts that are not the project's own, such as those of a
    store that several projects share.

    Args:
        database: The SQLite store, under its lock.
        root: The project.
        location: What the store says of an experiment: where its artifacts are.

    Raises:
        sqlite3.Error: If the store cannot be written.
    """
    before, found, name = location.rpartition(f"/{ARTIFACTS}/")
    now = root.as_uri()
    moved_along = database.is_relative_to(root) and (root / ARTIFACTS).is_dir()
    # Branches are projects within the project.
    if not found or "/" in name or f"{before}/".startswith(f"{now}/") or not moved_along:
        return
    old, new = f"{before}/{ARTIFACTS}/", f"{now}/{ARTIFACTS}/"
    with closing(sqlite3.connect(database, timeout=PATIENCE)) as connection, connection:
        for table, column in _ADDRESSES:
            if any(
                column == field[1] for field in connection.execute(f"PRAGMA table_info({table})")
            ):
                connection.execute(
                    f"UPDATE {table} SET {column} = ? || substr({column}, ?) "
                    f"WHERE substr({column}, 1, ?) = ?",
                    (new, len(old) + 1, len(old), old),
                )
