"""What a stage leaves behind: a folder that appears whole or not at all, and says what it is.

Every artifact has a `manifest.json`: its type, the sha256 and size of each of its files, and what
the stage wants its readers to know. An artifact is named by the sha256 of its manifest, which
therefore stands for all its bytes. Nothing in it depends on the clock, the host or a run id.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from stages.core.alone import alone_at
from stages.core.errors import ArtifactError, LatentlineError
from stages.core.remote_files import RemoteCache, list_remote

__all__ = [
    "Artifact",
    "file_sha256",
    "new_artifact",
    "open_artifact",
    "open_remote_artifact",
    "read_array",
    "read_weights",
    "reading",
    "write_json",
    "write_weights",
]

MANIFEST = "manifest.json"

_UNREADABLE = (
    ValueError,
    LookupError,
    EOFError,
    OverflowError,
    NotImplementedError,
    RecursionError,
    TokenError,
    OSError,
)
"""What readers of JSON, .npy and Parquet raise where a file is not what they read."""


@dataclass(frozen=True)
class Artifact:
    """A finished folder of an earlier stage."""

    path: Path
    type: str
    digest: str
    """sha256 of the manifest: the artifact's name."""
    files: dict[str, dict[str, Any]]
    """Relative path -> {"sha256": ..., "bytes": ...}."""
    about: dict[str, Any]
    """What the stage wrote for its readers."""
    fetch: Callable[[str], Path] | None = None
    """Brings a file of an artifact in a remote store here; None: files are in `path`."""

    def verified(self, name: str) -> Path:
        """Path of one file after its sha256 was compared with the manifest.

        Raises:
            ArtifactError: If the file is missing or its bytes are not those the stage wrote.
        """
        entry = self.files.get(name)
        path = self.path / name if self.fetch is None or entry is None else self.fetch(name)
        if entry is None or not path.is_file():
            raise ArtifactError(
                f"{path}: missing from the {self.type} artifact; {_mend(self.path)}"
            )
        found = file_sha256(path)
        if found != entry["sha256"]:
            raise ArtifactError(
                f"{path}: damaged: sha256 must be {entry['sha256']}, is {found}; {_mend(self.path)}"
            )
        return path


def _mend(path: Path) -> str:
    return f"restore it with `dvc checkout --force {path}` or run its stage again (`dvc repro`)"


def file_sha256(path: Path) -> str:
    """Hex sha256 of a file's bytes, read in chunks."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys and a final newline: equal values give equal bytes."""
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    path.write_text(text + "\n", encoding="utf-8")


@contextmanager
def new_artifact(path: Path, type: str, about: dict[str, Any]) -> Iterator[Path]:
    """Build an artifact in a folder beside `path` and move it into place when it is whole.

    Yields the folder to write into; `about` may still be filled while inside. A failure inside
    leaves nothing under `path`. Another process that builds the same one is waited for.

    Args:
        path: Where the artifact is to stand; what is there is replaced, a link by the artifact.
        type: What it is, e.g. `prepared` or `autoencoder`; `open_artifact` asks for it again.
        about: What readers need to know; plain JSON values.
    """
    building = path.with_name(f".{path.name}.building")
    with alone_at(path):
        shutil.rmtree(building, ignore_errors=True)
        building.mkdir()
        try:
            yield building
            files = {
                str(file.relative_to(building)): {
                    "sha256": file_sha256(file),
                    "bytes": file.stat().st_size,
                }
                for file in sorted(building.rglob("*"))
                if file.is_file()
            }
            write_json(building / MANIFEST, {"type": type, "files": files, "about": about})
            _sync(building)
            _remove(path)
            building.replace(path)
        finally:
            shutil.rmtree(building, ignore_errors=True)


def _remove(path: Path) -> None:
    if path.is_symlink() or path.is_file():
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _sync(folder: Path) -> None:
    for file in (folder, *folder.rglob("*")):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def open_artifact(path: Path, type: str) -> Artifact:
    """Open a finished artifact; file sizes are compared with the manifest, bytes are not.

    Raises:
        ArtifactError: If it is missing, unfinished, truncated, or of another type.
    """
    manifest = path / MANIFEST
    return _opened(
        path,
        type,
        manifest.read_bytes if manifest.exists() else None,
        lambda name: (path / name).stat().st_size if (path / name).is_file() else None,
    )


def open_remote_artifact(url: str, type: str, cache: RemoteCache) -> Artifact:
    """Open a finished artifact in a remote store; its files are fetched when they are asked for.

    Args:
        url: Its folder, as fsspec takes it.
        type: What it must be.
        cache: Where fetched files are kept.

    Raises:
        ArtifactError: As `open_artifact`.
        DataError: If the store cannot be reached.
    """
    found = {file.name: file for file in list_remote(url)}
    manifest = found.get(MANIFEST)
    artifact = _opened(
        Path(url),
        type,
        None if manifest is None else lambda: cache.read(manifest),
        lambda name: found[name].size if name in found else None,
    )
    return replace(artifact, fetch=lambda name: cache.fetch(found[name]))


def _opened(
    path: Path,
    type: str,
    read_manifest: Callable[[], bytes] | None,
    size_of: Callable[[str], int | None],
) -> Artifact:
    manifest = path / MANIFEST
    if read_manifest is None:
        raise ArtifactError(
            f"{path}: the {type} artifact must be here (no {MANIFEST}); "
            "run the stage that writes it, or `dvc repro`"
        )
    try:
        text = read_manifest()
        content = json.loads(text)
        files, about, found = content["files"], content["about"], content["type"]
        sizes = {name: int(entry["bytes"]) for name, entry in files.items()}
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(f"{manifest}: unreadable ({error}); {_mend(path)}") from None
    except RecursionError:
        raise ArtifactError(f"{manifest}: nested without end; {_mend(path)}") from None
    if found != type:
        raise ArtifactError(f"{path}: must be an artifact of type {type!r}, is {found!r}")
    for name, wanted in sizes.items():
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ArtifactError(f"{manifest}: names {name!r}, which lies outside; {_mend(path)}")
        size = size_of(name)
        if size != wanted:
            came = "is missing" if size is None else f"has {size}"
            raise ArtifactError(f"{path / name}: must have {wanted} bytes, {came}; {_mend(path)}")
    return Artifact(path, type, hashlib.sha256(text).hexdigest(), files, about)


@contextmanager
def reading(artifact: Artifact, name: str) -> Iterator[Path]:
    """The path of a file to be read within, after its bytes were verified.

    A manifest can vouch for bytes that are no such file: what their reader then raises within is
    told as damage.

    Raises:
        ArtifactError: If the file is missing or damaged, or cannot be read.
    """
    path = artifact.verified(name)
    try:
        yield path
    except LatentlineError:
        raise
    except _UNREADABLE as error:
        # With a number it is the system that refuses; Arrow tells of damage without one.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = next(iter(str(error).splitlines()), "") or type(error).__name__
        raise ArtifactError(f"{path}: cannot be read ({reason}); {_mend(artifact.path)}") from None


def read_array(artifact: Artifact, name: str, *, mapped: bool = False) -> np.ndarray:
    """Read an .npy file from an artifact after verifying its bytes.

    Args:
        artifact: Whose file.
        name: Its path within.
        mapped: As a read-only memory map.

    Raises:
        ArtifactError: If the file is damaged or not .npy.
    """
    # Not `numpy.load`, which takes what it does not know for a pickle.
    with reading(artifact, name) as path:
        if mapped:
            return np.lib.format.open_memmap(path, mode="r")
        with path.open("rb") as file:
            return np.lib.format.read_array(file, allow_pickle=False)


def write_weights(path: Path, tensors: dict[str, Tensor]) -> None:
    """Write tensors as safetensors: no pickle, equal tensors give equal bytes.

    Raises:
        OSError: If the disk refuses them.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    try:
        save_file(whole, path)
    except SafetensorError as error:
        # The library tells the system's errors as its own.
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        code = int(number.group(1))
        raise OSError(code, os.strerror(code), str(path)) from None


def read_weights(artifact: Artifact, name: str) -> dict[str, Tensor]:
    """Read safetensors from an artifact after verifying their bytes.

    Raises:
        ArtifactError: If the file is damaged or not safetensors.
    """
    path = artifact.verified(name)
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ArtifactError(f"{path}: not a safetensors file ({error}); {_mend(path)}") from None
