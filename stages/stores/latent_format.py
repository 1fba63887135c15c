"""The format of the open latent data set: what a row is, and what every file says of itself.

A row is one view of one image. Its columns, in Parquet and in memory:

    index          int64        row of the image in the prepared split
    label          int64        its class; the column is absent when the data have no classes
    view           dictionary   how the image was changed before it was encoded
    codes          fixed-size list of the smallest unsigned integers that hold num_codes, or
    mean           fixed-size list of float16 or float32: scale * the posterior's mean, and
    log_variance   the same: its log-variance + 2 log(scale); absent when latents are points

The header says of which family the posterior is; its two moments settle it (stages/nn/posteriors).
Lists run over (grid_height, grid_width) or (channels, grid_height, grid_width), last axis fastest.
The header below stands as JSON in the schema metadata of every file, under the key `latentline`,
and in the manifest, so that a file that was copied elsewhere still says what it is.
"""

from typing import Any, Literal

import numpy as np
import pyarrow as pa
from pydantic import Field, ValidationError

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.errors import ArtifactError
from stages.core.sections import Section

__all__ = [
    "FORMAT",
    "METADATA_KEY",
    "VERSION",
    "LatentHeader",
    "PosteriorFamily",
    "Rows",
    "View",
    "arrow_schema",
    "code_type",
    "column_types",
    "parse_header",
]

FORMAT = "latentline latents"
VERSION = 1
METADATA_KEY = b"latentline"

PosteriorFamily = Literal["gaussian", "laplace", "gamma", "beta"]
View = Literal[
    "identity",
    "horizontal_flip",
    "shift_up_left",
    "shift_up_right",
    "shift_down_left",
    "shift_down_right",
    "flip_shift_up_left",
    "flip_shift_up_right",
    "flip_shift_down_left",
    "flip_shift_down_right",
]
"""How the image was changed before it was encoded (stages/encoding/views.py)."""
Rows = dict[str, np.ndarray]
"""Column name -> (rows,) or (rows, numbers); `view` as int8 positions in the header's views."""


class LatentHeader(Section):
    """What a latent data set says of itself."""

    format: Literal["latentline latents"]
    version: Literal[1]
    kind: LatentKind
    grid_height: int = Field(gt=0)
    grid_width: int = Field(gt=0)
    num_codes: int = Field(ge=0)
    """Size of the alphabet; 0 for continuous latents."""
    channels: int = Field(ge=0)
    """Numbers per grid cell; 0 for codes."""
    scale: float = Field(gt=0)
    """Stored = scale * the bottleneck's own units; 1 for codes."""
    deterministic: bool
    """Whether continuous latents are points, without a log-variance."""
    parts: tuple[tuple[int, int], ...] = ()
    """Rows and columns of grids of codes that stand end to end in one row; []: one grid, as in
    all data sets from before there were several."""
    posterior: PosteriorFamily = "gaussian"
    """Family of the posteriors that mean and log-variance tell; says nothing about codes."""
    reference: tuple[float, ...] = ()
    """Parameters of their standard prior, where the family has several."""
    precision: Literal["float16", "float32"]
    """Type of continuous latents on disk; says nothing about codes."""
    views: tuple[View, ...]
    """Views of the training split; the other splits hold `identity` alone."""
    num_classes: int = Field(ge=0)
    class_names: tuple[str, ...] | None
    autoencoder: str
    """sha256 that names the autoencoder whose latents these are."""
    prepared: str
    """sha256 that names the images."""
    first_stage: dict[str, Any]
    """The sections of params.yaml the autoencoder was built from."""

    @property
    def spec(self) -> LatentSpec:
        """What a prior of these latents has to model."""
        return LatentSpec(
            kind=self.kind,
            grid_height=self.grid_height,
            grid_width=self.grid_width,
            num_codes=self.num_codes,
            channels=self.channels,
            scale=self.scale,
            deterministic=self.deterministic,
            parts=self.parts,
            posterior=self.posterior,
            reference=self.reference,
        )


def parse_header(value: Any, source: str) -> LatentHeader:
    """Read a header as it stands in a manifest.

    Args:
        value: The JSON value.
        source: What to call the data set in messages.

    Raises:
        ArtifactError: If it is not a header, or one of a version this code does not know.
    """
    found = value if isinstance(value, dict) else {}
    if found.get("format") != FORMAT:
        raise ArtifactError(
            f"{source}: format must be {FORMAT!r}, is {found.get('format')!r}; "
            "this folder was not written by the stage encode"
        )
    if found.get("version") != VERSION:
        raise ArtifactError(
            f"{source}: latents of format version {found.get('version')!r}, this program reads "
            f"version {VERSION}; use the program that wrote them, or run the stage encode again"
        )
    try:
        return LatentHeader.model_validate(found, strict=False)
    except ValidationError as error:
        fields = ", ".join(".".join(map(str, item["loc"])) for item in error.errors())
        raise ArtifactError(f"{source}: header is damaged at {fields}; encode again") from None


def code_type(num_codes: int) -> np.dtype:
    """The smallest unsigned integer type that holds the codes 0 ... num_codes - 1.

    Raises:
        ArtifactError: If there are more codes than 32 bits tell apart.
    """
    if num_codes > 2**32:
        raise ArtifactError(
            f"more codes than a type holds: at most {2**32} can be stored, got {num_codes}; "
            "choose a bottleneck with fewer"
        )
    return np.min_scalar_type(max(num_codes - 1, 0))


def column_types(header: LatentHeader) -> dict[str, tuple[np.dtype, int]]:
    """Column -> its type in memory and how many numbers a row has; 0 for a plain column."""
    columns = {"index": (np.dtype(np.int64), 0)}
    if header.num_classes:
        columns["label"] = (np.dtype(np.int64), 0)
    columns["view"] = (np.dtype(np.int8), 0)
    if header.kind == "codes":
        columns["codes"] = (code_type(header.num_codes), header.spec.tokens)
    else:
        columns["mean"] = (np.dtype(header.precision), header.spec.numbers)
        if not header.deterministic:
            columns["log_variance"] = columns["mean"]
    return columns


def arrow_schema(header: LatentHeader) -> pa.Schema:
    """Schema of every file of the data set, the header among its metadata."""
    fields = []
    for name, (dtype, numbers) in column_types(header).items():
        type = pa.from_numpy_dtype(dtype)
        if name == "view":
            type = pa.dictionary(type, pa.string())
        if numbers:
            type = pa.list_(pa.field("element", type, nullable=False), numbers)
        fields.append(pa.field(name, type, nullable=False))
    return pa.schema(fields, {METADATA_KEY: header.model_dump_json()})
