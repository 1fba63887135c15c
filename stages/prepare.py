"""Prepare: images of any source become three splits of uint8 arrays.

Which split an image belongs to is a function of its own pixels, read as a number u in [0, 1):

    u = first 8 bytes of sha256(pixels after conversion) / 2^64
    u < test_fraction                  test, unless the source has an official test split
    u >= 1 - validation_fraction       validation
    otherwise                          train

So adding or removing images moves no other image, another fraction moves only the images between
the old and the new bound, and identical images always land in the same split: none is trained on
and tested with. An official test split is taken as it is, repeats of training images included.
"""

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from stages.core.artifacts import new_artifact
from stages.core.errors import DataError
from stages.core.sections import Section, load_member
from stages.core.stage import Run, run_stage
from stages.datasets.base import (
    SPLITS,
    DatasetOptions,
    ImageBlock,
    ImageSource,
    Rejected,
    Split,
)
from stages.stores.prepared import TYPE, PreparedWriter

__all__ = ["PREPARED", "PrepareParams", "prepare", "split_of_each"]

PREPARED = Path("data/prepared")


class PrepareParams(Section):
    """The sections `prepare` reads."""

    dataset: DatasetOptions


def prepare(params: PrepareParams, run: Run) -> None:
    """Write `data/prepared`, whole or not at all.

    Raises:
        DataError: If the source's data are missing or bad, or a split would be empty.
    """
    options = params.dataset
    source: ImageSource = load_member(ImageSource, options.kind)(options)
    rejected: list[Rejected] = []
    about: dict[str, Any] = {}
    with new_artifact(PREPARED, TYPE, about) as folder:
        with PreparedWriter(folder, options.image_shape) as writer:
            for block in source.blocks(rejected):
                _add(writer, block, options)
                run.raise_if_stopped()
        _refuse_empty_splits(writer.counts(), options)
        _refuse_classes_not_taught(source.class_names(), writer)
        about.update(_describe(source, options, writer, rejected))
    run.tracker.log_metrics(
        {f"images/{name}": float(count) for name, count in about["counts"].items()}
        | {"images/rejected": float(len(rejected))}
    )
    run.tracker.log_file(PREPARED / "manifest.json")
    counts = ", ".join(f"{name} {count}" for name, count in about["counts"].items())
    print(f"prepare: {counts}; {len(rejected)} files rejected")


def split_of_each(
    images: UInt8[np.ndarray, "count channels height width"],
    *,
    validation_fraction: float,
    test_fraction: float,
) -> np.ndarray:
    """Split of each image by its content.

    Args:
        images: The images, after conversion.
        validation_fraction: Expected share of `validation`.
        test_fraction: Expected share of `test`; 0 where the split is official.

    Returns:
        Indices into `SPLITS`, int64 (count,).
    """
    digests = (hashlib.sha256(np.ascontiguousarray(image)).digest()[:8] for image in images)
    u = np.array([int.from_bytes(digest, "big") / 2**64 for digest in digests])
    split = np.full(len(images), SPLITS.index("train"))
    split[u >= 1 - validation_fraction] = SPLITS.index("validation")
    split[u < test_fraction] = SPLITS.index("test")
    return split


def _add(writer: PreparedWriter, block: ImageBlock, options: DatasetOptions) -> None:
    if block.split == "test":
        split = np.full(len(block.images), SPLITS.index("test"))
    else:
        split = split_of_each(
            block.images,
            validation_fraction=options.validation_fraction,
            test_fraction=options.test_fraction if block.split is None else 0.0,
        )
    for index, name in enumerate(SPLITS):
        rows = np.flatnonzero(split == index)
        writer.add(
            name,
            block.images[rows],
            None if block.labels is None else block.labels[rows],
            {factor: values[rows] for factor, values in block.factors.items()},
        )


def _refuse_empty_splits(counts: dict[str, int], options: DatasetOptions) -> None:
    empty = [name for name in SPLITS if not counts.get(name)]
    if empty:
        raise DataError(
            f"every split must have an image, {' and '.join(empty)} would have none of "
            f"{sum(counts.values())}; give more images or other fractions (dataset."
            f"validation_fraction is {options.validation_fraction}, dataset.test_fraction "
            f"{options.test_fraction})"
        )


def _refuse_classes_not_taught(names: list[str] | None, writer: PreparedWriter) -> None:
    """Samples would be drawn of a class that nobody was shown."""
    counts = [] if names is None else writer.class_counts("train", len(names))
    missing = [name for name, count in zip(names or [], counts, strict=True) if count == 0]
    if missing:
        raise DataError(
            f"every class must have a training image, {' and '.join(missing)} would have none "
            "(files that are rejected do not count, nor those that fall to validation and test); "
            "give it more images or take it away"
        )


def _describe(
    source: ImageSource,
    options: DatasetOptions,
    writer: PreparedWriter,
    rejected: list[Rejected],
) -> dict[str, Any]:
    names = source.class_names()
    counts = writer.counts()
    per_class: dict[Split, list[int]] | None = None
    if names is not None:
        per_class = {split: writer.class_counts(split, len(names)) for split in SPLITS}
    return {
        "source": options.kind,
        "options": options.model_dump(mode="json"),
        "image_shape": list(options.image_shape),
        "counts": {split: counts[split] for split in SPLITS},
        "class_names": names,
        "class_counts": per_class,
        "statistics": writer.statistics("train"),
        "rejected": [{"path": item.path, "reason": item.reason} for item in rejected],
        "provenance": source.provenance(),
    }


if __name__ == "__main__":
    run_stage("prepare", PrepareParams, prepare, inputs={})
