"""A folder and a zip archive, here or in a remote store: in the same way a sorted list of files.

Nothing is ever extracted: a member of an archive is read by the name it has there, and a name that
points outside the archive is refused all the same. So are members that share bytes or claim to grow
beyond what their compression can do (bombs), and links that lead out of a folder. Names are for
people's eyes: what is no printable character is written as an escape, so that no name moves a
terminal's cursor or reads from right to left.
"""

import lzma
import os
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path, PurePosixPath

from stages.core.errors import DataError
from stages.core.remote_files import is_url, list_remote, open_cache

__all__ = ["TreeFile", "Unreadable", "local_archive", "open_tree"]

_ARCHIVE = ".zip"

METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
"""Those whose unpacking can be stopped in the middle."""
MOST_GROWTH = 1100
"""Deflate cannot do more than 1032."""
LOCAL_HEADER_BYTES = 30
"""Before a member's name and bytes; less than what is really there, never more."""


class Unreadable(Exception):
    """A member of an archive that cannot be unpacked; the text says why."""


@dataclass(frozen=True)
class TreeFile:
    """One file of a folder or archive."""

    name: str
    """Path below the root, parts joined by `/`; printable."""
    size: int
    """Bytes it holds, as far as the directory says."""
    read: Callable[[], bytes]
    """Gives its content; of an archive's member it may raise Unreadable."""
    problem: str | None
    """Why it must not be read, or None."""

    @property
    def parts(self) -> tuple[str, ...]:
        """The parts of its name."""
        return PurePosixPath(self.name).parts


@contextmanager
def open_tree(place: str) -> Iterator[list[TreeFile]]:
    """List all files below a folder or in a zip archive, sorted by name.

    Args:
        place: The folder or the archive: a path, or the URL of one in a store that fsspec reaches.

    Raises:
        DataError: If it is neither.
    """
    if is_url(place) and not place.endswith(_ARCHIVE):
        yield _remote_folder(place)
        return
    path = local_archive(place) if is_url(place) else Path(place)
    if path.is_dir():
        yield sorted(_folder(path), key=lambda file: file.name)
        return
    try:
        archive = zipfile.ZipFile(path)
    except FileNotFoundError:
        raise DataError(f"{path}: missing; a folder or a zip archive must be here") from None
    except zipfile.BadZipFile as error:
        raise DataError(
            f"{path}: must be a folder or a whole zip archive ({error}); get it again"
        ) from None
    with archive:
        infos = [info for info in archive.infolist() if not info.is_dir()]
        shared = _sharing_bytes(infos)
        members = [_member(archive, info, id(info) in shared) for info in infos]
        yield sorted(members, key=lambda file: file.name)


def local_archive(place: str) -> Path:
    """Where the bytes of an archive are on this machine; fetched, where `place` is a URL.

    Raises:
        DataError: If they cannot be.
    """
    if not is_url(place):
        return Path(place)
    [file] = list_remote(place)
    return open_cache().fetch(file)


def _remote_folder(url: str) -> list[TreeFile]:
    cache = open_cache()
    return [
        TreeFile(_printable(file.name), file.size, partial(cache.read, file), None)
        for file in list_remote(url)
    ]


def _folder(root: Path) -> Iterator[TreeFile]:
    inside = root.resolve()
    for folder, subfolders, names in os.walk(root):
        for name in [*names, *subfolders]:
            path = Path(folder, name)
            printable = _printable(str(path.relative_to(root)))
            mode = path.stat().st_mode if path.exists() else 0
            if path.is_symlink() and mode and not path.resolve().is_relative_to(inside):
                yield TreeFile(printable, 0, path.read_bytes, "a link out of the folder")
            elif stat.S_ISREG(mode):
                yield TreeFile(printable, path.stat().st_size, path.read_bytes, None)
            # os.walk descends into folders, but not through links: they may form a circle.
            elif path.is_symlink():
                kind = "a folder, which is not followed" if stat.S_ISDIR(mode) else "nothing"
                yield TreeFile(printable, 0, path.read_bytes, f"a link to {kind}")
            elif not stat.S_ISDIR(mode):
                yield TreeFile(printable, 0, path.read_bytes, "not a regular file")


def _sharing_bytes(infos: list[zipfile.ZipInfo]) -> set[int]:
    """Members whose bytes begin before those of the one before have ended."""
    found: set[int] = set()
    before: zipfile.ZipInfo | None = None
    end = 0
    for info in sorted(infos, key=lambda info: info.header_offset):
        if before is not None and info.header_offset < end:
            found |= {id(before), id(info)}
        reach = info.header_offset + LOCAL_HEADER_BYTES + info.compress_size
        if before is None or reach > end:
            before, end = info, reach
    return found


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, shares_bytes: bool) -> TreeFile:
    name = info.filename.replace("\\", "/")
    problem = None
    if name.startswith("/") or ":" in name.split("/")[0] or ".." in name.split("/"):
        problem = "its path points outside the archive"
    elif info.flag_bits & 1:
        problem = "encrypted"
    elif stat.S_ISLNK(info.external_attr >> 16):
        problem = "a link"
    elif info.compress_type not in METHODS:
        problem = f"compressed by method {info.compress_type}; stored and deflated ones are read"
    elif shares_bytes:
        problem = "it shares bytes with another member, as in a zip bomb"
    elif info.file_size > MOST_GROWTH * max(info.compress_size, 1):
        problem = f"{info.compress_size} bytes that claim to be {info.file_size}: a zip bomb"
    return TreeFile(_printable(name), info.file_size, partial(_unpack, archive, info), problem)


def _unpack(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    try:
        with archive.open(info) as file:
            # Asked for so many bytes, it unpacks no more than these, whatever else there is.
            content = file.read(info.file_size)
            if file.read(1) or len(content) != info.file_size:
                raise Unreadable(f"does not hold the {info.file_size} bytes it claims to")
            return content
    # RuntimeError and NotImplementedError: a compression this Python cannot undo.
    except (
        zipfile.BadZipFile,
        zlib.error,
        lzma.LZMAError,
        EOFError,
        RuntimeError,
        NotImplementedError,
    ) as error:
        raise Unreadable(f"damaged in the archive: {error}") from None


def _printable(name: str) -> str:
    """With escapes for what is no printable text: stray bytes, control characters, directions."""
    text = name.encode("utf-8", "backslashreplace").decode()
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape").decode() for char in text
    )
