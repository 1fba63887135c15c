"""Files of a published data set: wherever they lie, byte for byte what was published.

The publisher's md5 (the one torchvision knows) is compared before a byte is used, so a file that
passes is known to its last bit, and reading it, even unpickling it, holds no surprise.
"""

import hashlib
import lzma
from collections.abc import Callable, Sequence
from pathlib import Path

from stages.core.errors import DataError

__all__ = ["find_published", "published_bytes"]


def find_published(
    root: Path, places: Sequence[str], download: Callable[[], object] | None
) -> Path:
    """The first of some places under `root` that holds a file.

    Args:
        root: Folder of the data set, `dataset.root`.
        places: Paths relative to `root`, the preferred one first.
        download: Fetches the missing data set, or None where downloading is not allowed.

    Raises:
        DataError: If no place holds the file, or the download fails.
    """
    for attempt in (None, download):
        if attempt is not None:
            _fetch(root, attempt)
        for place in places:
            if (root / place).is_file():
                return root / place
    others = " or ".join(str(root / place) for place in places[1:])
    raise DataError(
        f"{root / places[0]}: missing; this file of the data set must be there, or at {others}; "
        "put it there, mend dataset.root, or set dataset.download: true"
    )


def _fetch(root: Path, download: Callable[[], object]) -> None:
    try:
        download()
    # torchvision lets errors of urllib, of sockets and its own RuntimeError through.
    except (OSError, RuntimeError) as error:
        raise DataError(
            f"{root}: the data set is not complete there and its download failed ({error}); try "
            "again, or put the files there by hand and set dataset.download: false"
        ) from None


def published_bytes(path: Path, md5: str) -> bytes:
    """Content of a file (of a `.xz` file: what is compressed in it), after comparing its md5.

    Raises:
        DataError: If it is not what was published.
    """
    content = path.read_bytes()
    if path.suffix == ".xz":
        try:
            content = lzma.decompress(content)
        except lzma.LZMAError as error:
            raise DataError(f"{path}: damaged: not a whole xz file ({error}); {_MEND}") from None
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != md5:
        raise DataError(
            f"{path}: not the published file: md5 of its content must be {md5}, is {found} "
            f"({len(content)} bytes); {_MEND}"
        )
    return content


_MEND = "remove it and fetch it again (dataset.download: true does so)"
