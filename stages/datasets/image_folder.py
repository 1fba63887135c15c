"""A person's own images: class folders, or one flat folder, or a zip archive of either.

Classes. Folders that all images share are taken off first (archives often have one). Then either
all images lie in folders, whose sorted names are the classes (deeper folders do not matter), or all
lie side by side and there are no classes. A mixture is refused.

Bad files. Files whose name promises an image but whose content cannot be used are bad: damaged,
truncated, empty, mis-named, films, more pixels than Pillow dares. `on_bad_file` decides whether
they are an error or left out. Other files (notes, licences, hidden ones) are left out. All that is
left out is listed with its reason; nothing is dropped silently.
"""

import hashlib
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import takewhile
from typing import Any, Literal

import numpy as np
from PIL import ImageColor
from pydantic import Field, field_validator

from stages.core.artifacts import file_sha256
from stages.core.errors import DataError
from stages.core.remote_files import is_url
from stages.core.shapes import ImageShape
from stages.datasets.base import (
    DatasetOptions,
    ImageBlock,
    ImageSource,
    Rejected,
    images_per_block,
)
from stages.files.file_trees import TreeFile, Unreadable, local_archive, open_tree
from stages.files.image_files import (
    Filter,
    Form,
    NotAnImage,
    has_image_suffix,
    read_image,
)

__all__ = ["ImageFolder", "ImageFolderOptions"]

LARGEST_FILE = 2**28
"""Bytes; what is larger is no picture of a training set and is not read into memory."""
LISTED = 20
"""Bad files named in an error message; the rest are counted."""


class ImageFolderOptions(DatasetOptions):
    """Options of `image_folder`: where the files are and what becomes of each."""

    kind: Literal["image_folder"]
    path: str = Field(min_length=1)
    """A folder or a zip archive; or the URL of one in a store: s3://bucket/folder."""
    resolution: int = Field(ge=4)
    """Side of the square each image is cropped (centre) and resized to."""
    channels: Literal[1, 3]
    """1: grey. 3: colour."""
    filter: Filter
    """How to resize; all but `nearest` smooth before they shrink. Usual: lanczos."""
    background: str
    """Colour below transparent pixels: a name (`white`), `#rrggbb`, `rgb(r, g, b)`."""
    on_bad_file: Literal["fail", "skip"]
    """`fail`: report all bad files and stop. `skip`: leave them out and list them."""

    @property
    def image_shape(self) -> ImageShape:
        """`channels` of `resolution` x `resolution`."""
        return ImageShape(self.channels, self.resolution, self.resolution)

    @field_validator("background")
    @classmethod
    def _is_a_colour(cls, value: str) -> str:
        if len(ImageColor.getrgb(value)) != 3:
            raise ValueError("the background must be an opaque colour, such as white or #ffffff")
        return value


class ImageFolder(ImageSource):
    """The images of a folder or archive, sorted by path."""

    def __init__(self, options: ImageFolderOptions) -> None:
        self.options = options
        background = ImageColor.getrgb(options.background)
        self._form = Form(options.resolution, options.channels, options.filter, background)
        self._classes: list[str] | None = None
        self._used = 0
        self._content = hashlib.sha256()

    def blocks(self, rejected: list[Rejected]) -> Iterator[ImageBlock]:
        """Decode some files at a time, in threads; the order is that of the paths."""
        path = self.options.path
        bad: list[Rejected] = []
        with open_tree(path) as tree, ThreadPoolExecutor(os.cpu_count()) as threads:
            files = list(self._images(tree, rejected, bad))
            labels, self._classes = _classes(path, files)
            step = images_per_block(self.options.image_shape)
            for start in range(0, len(files), step):
                some = files[start : start + step]
                found = list(threads.map(self._read, some))
                good = self._sort_out(some, found, bad)
                if good:
                    chosen = None if labels is None else labels[[start + i for i in good]]
                    yield ImageBlock(
                        np.stack([found[i][0] for i in good]),
                        chosen,
                        names=tuple(some[i].name for i in good),
                    )
        if bad and self.options.on_bad_file == "fail":
            raise DataError(_explain(path, bad))
        if self._used == 0:
            raise DataError(
                f"{path}: must hold images, holds none that can be used "
                f"({len(tree)} files, {len(bad)} of them bad); mend dataset.path"
            )
        rejected.extend(bad)

    def class_names(self) -> list[str] | None:
        """Sorted names of the class folders; None for images side by side."""
        return self._classes

    def provenance(self) -> dict[str, Any]:
        """Number of used files, sha256 over their names and sha256s, and that of the archive."""
        content = {"files": self._used, "sha256": self._content.hexdigest()}
        if not is_url(self.options.path) or self.options.path.endswith(".zip"):
            path = local_archive(self.options.path)
            if path.is_file():
                content["archive_sha256"] = file_sha256(path)
        return content

    def _images(
        self, tree: list[TreeFile], rejected: list[Rejected], bad: list[Rejected]
    ) -> Iterator[TreeFile]:
        """Sort out by name what is no image; where the name does not tell, look inside."""
        for file in tree:
            if any(_hidden(part) for part in file.parts):
                rejected.append(Rejected(file.name, "hidden"))
            elif file.problem is not None:
                bad.append(Rejected(file.name, file.problem))
            elif has_image_suffix(file.name):
                yield file
            else:
                image, reason = self._read(file)
                if image is not None:
                    yield file
                elif reason.startswith("mis-named"):
                    bad.append(Rejected(file.name, reason))
                else:
                    rejected.append(Rejected(file.name, f"not named as an image, {reason}"))

    def _read(self, file: TreeFile) -> tuple[np.ndarray | None, str]:
        """The image and the sha256 of its file, or None and the reason."""
        if file.size > LARGEST_FILE:
            return None, f"{file.size} bytes long, at most {LARGEST_FILE} are read"
        try:
            content = file.read()
            return read_image(content, file.name, self._form), hashlib.sha256(content).hexdigest()
        except (NotAnImage, Unreadable) as error:
            return None, str(error)

    def _sort_out(
        self,
        files: list[TreeFile],
        found: list[tuple[np.ndarray | None, str]],
        bad: list[Rejected],
    ) -> list[int]:
        good = []
        for i, (file, (image, digest)) in enumerate(zip(files, found, strict=True)):
            if image is None:
                bad.append(Rejected(file.name, digest))
                continue
            good.append(i)
            self._used += 1
            self._content.update(f"{file.name}\n{digest}\n".encode())
        return good


def _hidden(part: str) -> bool:
    return part == "__MACOSX" or (part.startswith(".") and part != "..")


def _classes(path: str, files: list[TreeFile]) -> tuple[np.ndarray | None, list[str] | None]:
    """Labels int64 (len(files),) and class names, from the folders the images lie in."""
    if not files:
        return None, None
    parents = [file.parts[:-1] for file in files]
    levels = zip(*parents, strict=False)
    shared = sum(1 for _ in takewhile(lambda level: len(set(level)) == 1, levels))
    folders = [parts[shared] if len(parts) > shared else None for parts in parents]
    beside = [file.name for file, folder in zip(files, folders, strict=True) if folder is None]
    if len(beside) == len(files):
        return None, None
    if beside:
        raise DataError(
            f"{path}: either all images lie in class folders or all lie side by side; "
            f"{len(beside)} of {len(files)} lie beside folders, such as {beside[0]}; move them"
        )
    names = sorted({folder for folder in folders if folder is not None})
    numbers = {name: number for number, name in enumerate(names)}
    return np.array([numbers[folder] for folder in folders], dtype=np.int64), names


def _explain(path: str, bad: list[Rejected]) -> str:
    lines = [f"  {file.path}: {file.reason}" for file in bad[:LISTED]]
    if len(bad) > LISTED:
        lines.append(f"  ... and {len(bad) - LISTED} more")
    return "\n".join(
        [
            f"{path}: every image file must be usable, {len(bad)} "
            f"{'is' if len(bad) == 1 else 'are'} not; mend or remove them, or set "
            "dataset.on_bad_file: skip",
            *lines,
        ]
    )
