"""What is stored of a data set, and in which portions: the `encode` section."""

from typing import Literal

from pydantic import Field, field_validator

from stages.core.sections import Section
from stages.stores.latent_format import View

__all__ = ["EncodeOptions"]


class EncodeOptions(Section):
    """What is stored, and in which portions."""

    views: tuple[View, ...] = Field(min_length=1)
    """How training images are seen before they are encoded; each view is a row of its own.

    `identity` must be among them: the other splits are stored in it alone.
    """
    batch_size: int = Field(gt=0)
    """Images encoded together, and lost at most when the stage is killed."""
    rows_per_shard: int = Field(gt=0)
    """Rows in one Parquet file."""
    precision: Literal["float16", "float32"]
    """Type of continuous latents on disk; codes take the smallest integers that hold them."""

    @field_validator("views")
    @classmethod
    def _distinct_with_identity(cls, views: tuple[View, ...]) -> tuple[View, ...]:
        if len(set(views)) < len(views) or "identity" not in views:
            raise ValueError("must name identity, and no view twice")
        return views
