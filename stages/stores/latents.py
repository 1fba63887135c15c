"""The latent data set as a prior's training reads it: any rows of a split, in any order.

Parquet is read from front to back, training reads at random. So a split is decoded once, after
the sha256 of its files was compared with the manifest: into memory when it is small, otherwise
into flat files under `.work/latents/` that are memory-mapped and shared by all later readers. A
split larger than memory therefore works. These files may be deleted at any time.

Stored continuous latents are scaled (see `latent_format`). Priors model them as they are; the scale
is undone where the autoencoder decodes them, and where a posterior is put together again from its
moments: of the families, only some are scaled into themselves.
"""

import fcntl
import math
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float
from torch import Tensor

from stages.bottlenecks.base import LatentSpec
from stages.core.artifacts import Artifact, open_artifact, open_remote_artifact, reading
from stages.core.devices import sent_to
from stages.core.errors import ArtifactError
from stages.core.journal import project_root
from stages.core.remote_files import is_url, open_cache
from stages.core.shapes import Codes, Labels
from stages.nn.posteriors import FactorizedPosterior, Family, family_of
from stages.stores.latent_format import LatentHeader, Rows, column_types, parse_header
from stages.stores.latent_shards import read_shard

__all__ = ["LatentBatch", "LatentDataset", "LatentSplit", "open_latents"]

IN_MEMORY_BYTES = 2**30

_GAUSSIAN = family_of("gaussian", ())


@dataclass(frozen=True)
class LatentBatch:
    """Some rows: codes, or the mean (and log-variance) of scaled continuous latents."""

    codes: Codes | None
    mean: Float[Tensor, "batch channels grid_height grid_width"] | None
    log_variance: Float[Tensor, "batch channels grid_height grid_width"] | None
    """None also where latents are points."""
    labels: Labels | None
    family: Family = _GAUSSIAN
    """Of the posteriors, in the autoencoder's own units."""
    scale: float = 1.0
    """Stored numbers per own unit."""

    @property
    def posterior(self) -> FactorizedPosterior | None:
        """q(z given x) in the autoencoder's own units, in float64; None for codes and points."""
        if self.mean is None or self.log_variance is None:
            return None
        return self._posterior(self.mean.double(), self.log_variance.double())

    def to(self, device: torch.device) -> "LatentBatch":
        """The same batch on a device."""
        names = ("codes", "mean", "log_variance", "labels")
        tensors = {name: getattr(self, name) for name in names}
        return replace(
            self, **{n: t if t is None else sent_to(t, device) for n, t in tensors.items()}
        )

    def draw(self, generator: torch.Generator) -> Tensor:
        """What a prior is trained on: the codes, or one fresh draw of the posterior.

        Args:
            generator: Stream of the draw, on the device of the batch.

        Returns:
            Codes (batch, grid_height, grid_width), or scaled latents
            (batch, channels, grid_height, grid_width).
        """
        if self.codes is not None:
            return self.codes
        assert self.mean is not None
        if self.log_variance is None:
            return self.mean
        return self.scale * self._posterior(self.mean, self.log_variance).rsample(generator)

    def _posterior(self, mean: Tensor, log_variance: Tensor) -> FactorizedPosterior:
        own_log_variance = log_variance - 2 * math.log(self.scale)
        return FactorizedPosterior(mean / self.scale, own_log_variance, self.family)


class LatentSplit:
    """One split; rows are read from memory or from memory-mapped files."""

    def __init__(self, header: LatentHeader, columns: Rows) -> None:
        """Hold the columns of a split.

        Args:
            header: What the data set says of itself.
            columns: Every column of `column_types`, all rows.
        """
        self.header = header
        self.columns = columns
        self._family = family_of(header.posterior, header.reference)

    def __len__(self) -> int:
        return len(self.columns["index"])

    @property
    def index(self) -> np.ndarray:
        """Row of each image in the prepared split; int64 (rows,)."""
        return self.columns["index"]

    @property
    def labels(self) -> np.ndarray | None:
        """Classes, int64 (rows,); None when the data have none."""
        return self.columns.get("label")

    @property
    def views(self) -> pd.Categorical:
        """Name of the view of each row; compares with a name to a boolean array (rows,)."""
        return pd.Categorical.from_codes(self.columns["view"], categories=list(self.header.views))

    def batch(self, rows: np.ndarray) -> LatentBatch:
        """Read rows in the order given; only these are touched."""
        spec = self.header.spec
        grid = (spec.grid_height, spec.grid_width)
        codes, mean = self._tensor("codes", rows, np.int64), self._tensor("mean", rows, np.float32)
        log_variance = self._tensor("log_variance", rows, np.float32)
        shape = (len(rows), spec.channels, *grid)
        return LatentBatch(
            codes=None if codes is None else codes.reshape(len(rows), *grid),
            mean=None if mean is None else mean.reshape(shape),
            log_variance=None if log_variance is None else log_variance.reshape(shape),
            labels=self._tensor("label", rows, np.int64),
            family=self._family,
            scale=spec.scale,
        )

    def _tensor(self, column: str, rows: np.ndarray, dtype: type) -> Tensor | None:
        values = self.columns.get(column)
        return None if values is None else torch.from_numpy(values[rows].astype(dtype))


class LatentDataset:
    """A latent data set on disk.

    Attributes:
        artifact: Its folder and manifest.
        header: What it says of itself.
    """

    artifact: Artifact
    header: LatentHeader

    def __init__(self, artifact: Artifact, in_memory_bytes: int, scratch: Path) -> None:
        """Read the manifest; no row is read yet. Arguments as for `open_latents`."""
        self.artifact = artifact
        self.header = parse_header(artifact.about.get("header"), str(artifact.path))
        self._in_memory_bytes = in_memory_bytes
        self._scratch = scratch / artifact.digest[:16]
        self._opened: dict[str, LatentSplit] = {}

    @property
    def spec(self) -> LatentSpec:
        """What a prior has to model."""
        return self.header.spec

    @property
    def num_classes(self) -> int:
        """0 when the data have no classes."""
        return self.header.num_classes

    @property
    def class_names(self) -> list[str] | None:
        """Names by label, where known."""
        return None if self.header.class_names is None else list(self.header.class_names)

    @property
    def autoencoder_digest(self) -> str:
        """Name of the autoencoder whose latents these are."""
        return self.header.autoencoder

    def require_autoencoder(self, digest: str) -> None:
        """Refuse an autoencoder these latents do not belong to.

        Raises:
            ArtifactError: Naming both.
        """
        if digest != self.autoencoder_digest:
            raise ArtifactError(
                f"{self.artifact.path}: these latents belong to autoencoder "
                f"{self.autoencoder_digest}, not to {digest}; use the autoencoder that made them, "
                "or encode again with this one (`dvc repro encode`)"
            )

    def about_split(self, name: str) -> dict[str, Any]:
        """What the manifest says of a split: images, rows, shards, views, usage of the codes.

        Raises:
            ArtifactError: If there is no such split.
        """
        splits = self.artifact.about["splits"]
        if name not in splits:
            raise ArtifactError(
                f"{self.artifact.path}: no split {name!r}; there is {', '.join(splits)}"
            )
        return splits[name]

    def split(self, name: str) -> LatentSplit:
        """Open a split; its files are verified and decoded on the first call.

        Raises:
            ArtifactError: If there is no such split, or a file is damaged: naming it.
        """
        if name not in self._opened:
            about = self.about_split(name)
            types = column_types(self.header).values()
            row_bytes = sum(dtype.itemsize * max(numbers, 1) for dtype, numbers in types)
            large = about["rows"] * row_bytes > self._in_memory_bytes
            columns = self._mapped(name) if large else self._decoded(name)
            self._opened[name] = LatentSplit(self.header, columns)
        return self._opened[name]

    def _blocks(self, name: str) -> Iterator[Rows]:
        for shard in self.about_split(name)["shards"]:
            with reading(self.artifact, shard) as path:
                yield from read_shard(path, self.header)

    def _shapes(self, name: str) -> dict[str, tuple[np.dtype, tuple[int, ...]]]:
        rows = self.about_split(name)["rows"]
        return {
            column: (dtype, (rows, numbers) if numbers else (rows,))
            for column, (dtype, numbers) in column_types(self.header).items()
        }

    def _decoded(self, name: str) -> Rows:
        columns = {c: np.empty(shape, dtype) for c, (dtype, shape) in self._shapes(name).items()}
        start = 0
        for block in self._blocks(name):
            stop = start + len(block["index"])
            for column, values in block.items():
                columns[column][start:stop] = values
            start = stop
        assert start == len(columns["index"]), f"{name}: {start} rows, the manifest says otherwise"
        return columns

    def _mapped(self, name: str) -> Rows:
        self._scratch.mkdir(parents=True, exist_ok=True)
        folder = self._scratch / name
        with (self._scratch / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not folder.is_dir():
                self._decode_into(folder.with_suffix(".building"), name)
                folder.with_suffix(".building").replace(folder)
        return {
            column: np.memmap(folder / column, dtype, "r", shape=shape)
            for column, (dtype, shape) in self._shapes(name).items()
        }

    def _decode_into(self, folder: Path, name: str) -> None:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        with ExitStack() as stack:
            # Written as plain files: on a full disk that is an error, through a map it is a crash.
            files = {
                column: stack.enter_context((folder / column).open("wb"))
                for column in self._shapes(name)
            }
            for block in self._blocks(name):
                for column, values in block.items():
                    files[column].write(np.ascontiguousarray(values).data)


def open_latents(
    path: Path | str, in_memory_bytes: int = IN_MEMORY_BYTES, scratch: Path | None = None
) -> LatentDataset:
    """Open a latent data set.

    Args:
        path: Folder written by the stage encode, or a copy of it; or the URL of a copy in a store
            that fsspec reaches (`s3://bucket/latents`), whose files come by a bounded cache.
        in_memory_bytes: A split larger than this is decoded to disk and memory-mapped.
        scratch: Where; by default `.work/latents` of the project.

    Raises:
        ArtifactError: If it is missing, truncated, or of another or a newer format.
        DataError: If a store cannot be reached.
    """
    if scratch is None:
        scratch = project_root() / ".work" / "latents"
    if is_url(str(path)):
        artifact = open_remote_artifact(str(path), "latents", open_cache())
        return LatentDataset(artifact, in_memory_bytes, scratch)
    path = Path(path)
    if path.exists() and not path.is_dir():
        raise ArtifactError(f"{path}: must be a folder of latents, is a file")
    return LatentDataset(open_artifact(path, "latents"), in_memory_bytes, scratch)
