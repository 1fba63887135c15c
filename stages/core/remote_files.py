"""Files in a store that is reached by a URL (`s3://bucket/folder`), as far as they are needed here.

fsspec speaks to the stores (S3 and what is compatible with it needs the extra `s3`); credentials
and endpoint come from where its libraries look for them (AWS_PROFILE, AWS_ENDPOINT_URL and others).
A file that is asked for is kept in a folder of bounded size; when that is full, the files that were
not asked for the longest make room. fsspec's own caches forget by age and know no bound.

    LATENTLINE_CACHE_BYTES   the bound, in bytes; else 20 GiB
    LATENTLINE_CACHE         the folder; else `.work/remote` of the project

Any number of processes share the folder. A file appears in it whole or not at all, and its name
stands for URL, size and version of what was fetched.
"""

import fcntl
import hashlib
import os
import threading
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from stages.core.errors import DataError
from stages.core.journal import project_root

__all__ = ["RemoteCache", "RemoteFile", "is_url", "list_remote", "open_cache"]

CACHE_BYTES = 20 * 2**30


def is_url(place: str) -> bool:
    """Whether a place is one that fsspec reaches, and not a path of this machine."""
    return "://" in place


@dataclass(frozen=True)
class RemoteFile:
    """A file of a store, as a listing told of it."""

    url: str
    name: str
    """Path below what was listed, parts joined by `/`."""
    size: int
    """Bytes."""
    version: str
    """Changes with the content, where the store tells (ETag)."""


def list_remote(url: str) -> list[RemoteFile]:
    """All files below a URL, or the one it names, sorted by name.

    Raises:
        DataError: If the store cannot be reached, or holds nothing there.
    """
    system, path = _system(url)
    try:
        found = system.find(path, detail=True)
    # Every store has its own errors, and all mean the same here.
    except Exception as error:
        raise DataError(f"{url}: cannot be listed: {type(error).__name__}: {error}") from None
    if not found:
        raise DataError(f"{url}: missing; a folder or a file must be there")
    protocol = url.partition("://")[0]
    root = path.rstrip("/")
    files = []
    for place, about in found.items():
        name = place.removeprefix(root).lstrip("/") or root.rpartition("/")[2]
        version = str(about.get("ETag") or about.get("mtime") or about.get("LastModified") or "")
        files.append(RemoteFile(f"{protocol}://{place}", name, int(about["size"]), version))
    return sorted(files, key=lambda file: file.name)


def _system(url: str) -> tuple[Any, str]:
    import fsspec

    try:
        return fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise DataError(
            f"{url}: this kind of store needs a library that is not installed ({error}); for S3: "
            "pip install 'latentline[s3]'"
        ) from None
    except ValueError as error:
        raise DataError(f"{url}: no kind of store that is known: {error}") from None


class RemoteCache:
    """A folder of fetched files that stays below a bound.

    Args:
        folder: Where; made if it is not there.
        limit: Largest sum of sizes, bytes.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit
        self._held = threading.local()
        folder.mkdir(parents=True, exist_ok=True)

    def fetch(self, file: RemoteFile) -> Path:
        """A local copy; it stays at least until this thread asks for the next.

        Raises:
            DataError: If it is larger than the cache, or cannot be read.
        """
        if file.size > self.limit:
            raise DataError(
                f"{file.url}: {file.size} bytes must fit into the cache of {self.limit}; raise "
                "LATENTLINE_CACHE_BYTES"
            )
        name = hashlib.sha256(f"{file.url}\n{file.size}\n{file.version}".encode()).hexdigest()
        path = self.folder / name[:2] / name
        path.parent.mkdir(exist_ok=True)
        # What this thread had before may make room for it.
        self._release()
        while True:
            if not path.exists():
                self._download(file, path)
            # It may have made room for another in this moment.
            with suppress(FileNotFoundError):
                self._hold(path)
                return path

    def read(self, file: RemoteFile) -> bytes:
        """The content of a file."""
        return self.fetch(file).read_bytes()

    def _download(self, file: RemoteFile, path: Path) -> None:
        system, place = _system(file.url)
        building = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.building")
        try:
            system.get_file(place, str(building))
            found = building.stat().st_size
            if found != file.size:
                raise DataError(f"{file.url}: must have {file.size} bytes, {found} came; run again")
            with (self.folder / "lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                self._make_room(file.size)
                building.replace(path)
        except DataError:
            raise
        except Exception as error:
            raise DataError(
                f"{file.url}: cannot be read: {type(error).__name__}: {error}"
            ) from None
        finally:
            building.unlink(missing_ok=True)

    def _hold(self, path: Path) -> None:
        """Mark a file as used now, and in use until this thread takes another."""
        descriptor = os.open(path, os.O_RDONLY)
        fcntl.flock(descriptor, fcntl.LOCK_SH)
        os.utime(path)
        self._held.file = os.fdopen(descriptor)

    def _release(self) -> None:
        held = getattr(self._held, "file", None)
        if held is not None:
            held.close()
            self._held.file = None

    def _make_room(self, size: int) -> None:
        """Remove what was not asked for the longest and is not in use."""
        kept = []
        for path in self.folder.glob("??/*"):
            if path.suffix != ".building":
                with suppress(FileNotFoundError):
                    about = path.stat()
                    kept.append((about.st_mtime_ns, about.st_size, path))
        total = sum(bytes for _, bytes, _ in kept) + size
        for _, bytes, path in sorted(kept):
            if total <= self.limit:
                return
            with suppress(FileNotFoundError, BlockingIOError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()
                total -= bytes


def open_cache() -> RemoteCache:
    """The cache that the environment asks for.

    Raises:
        DataError: If its bound is no number of bytes.
    """
    folder = os.environ.get("LATENTLINE_CACHE") or project_root() / ".work" / "remote"
    limit = os.environ.get("LATENTLINE_CACHE_BYTES") or str(CACHE_BYTES)
    if not limit.isdecimal() or int(limit) == 0:
        raise DataError(f"LATENTLINE_CACHE_BYTES: must be a number of bytes, is {limit!r}")
    return RemoteCache(Path(folder), int(limit))
