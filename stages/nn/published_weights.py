"""Weights from a file that others published, known by its sha256.

DVC does not watch such a file, and a figure is named after its network: so a file that is not the
one it should be is refused, and no byte of it is interpreted before. Read without pickled code.
"""

from pathlib import Path

import torch
from torch import Tensor

from stages.core.artifacts import file_sha256
from stages.core.errors import ParamsError

__all__ = ["fill_published", "require_published"]


def require_published(path: Path, known: tuple[str, ...], mend: str) -> str:
    """The sha256 of a file, after it was found to be one of those published.

    Args:
        path: The file.
        known: How its sha256 may begin.
        mend: What to do about it, for messages.

    Raises:
        ParamsError: If the file is missing or another.
    """
    if not path.is_file():
        raise ParamsError(f"{path}: no such file; {mend}")
    checksum = file_sha256(path)
    if not checksum.startswith(known):
        raise ParamsError(
            f"{path}: sha256 must begin with {' or '.join(known)}, is {checksum}; {mend}"
        )
    return checksum


@torch.no_grad()
def fill_published(
    path: Path,
    targets: dict[str, Tensor],
    *,
    known: tuple[str, ...],
    mend: str,
    entry: str | None = None,
) -> str:
    """Copy tensors of a published file into those of a network.

    Args:
        path: The file, as `torch.save` writes it.
        targets: Name in the file -> tensor to fill. The file may hold more.
        known: How its sha256 may begin.
        mend: What to do about it, for messages.
        entry: Under which key of the file the tensors stand; None: at the top.

    Returns:
        The file's sha256.

    Raises:
        ParamsError: If the file is missing or another, or a tensor is absent or of another shape.
    """
    checksum = require_published(path, known, mend)
    content = torch.load(path, weights_only=True, map_location="cpu")
    tensors = content if entry is None else content[entry]
    for name, target in targets.items():
        found = tuple(tensors[name].shape) if name in tensors else "absent"
        if found != tuple(target.shape):
            raise ParamsError(f"{path}: {name} must be {tuple(target.shape)}, is {found}; {mend}")
        target.copy_(tensors[name])
    return checksum
