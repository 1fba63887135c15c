"""Encode a data set: the images of every split as latents, once.

Chunk by chunk, the autoencoder's latents are kept as pieces that survive a kill; when all are
there, the scale of continuous latents is measured on the training split and the Parquet files are
written. Views (`views.py`) multiply the training split only; validation and test are judged as they
are.

Several processes divide among themselves the pieces that are missing, and then the files. They
share the work folder, on several hosts too. So when one is lost, what it had finished stays, and
only the rest is done again; the bytes are the same in any number of processes.
"""

import math
import os
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stages.assembly.first_stage import FirstStage
from stages.bottlenecks.base import LatentSpec
from stages.core.artifacts import new_artifact
from stages.core.errors import ArtifactError, ParamsError
from stages.core.intensities import from_pixels
from stages.core.progress import progress
from stages.core.ranks import barrier, from_first, world
from stages.core.shapes import Images, Labels
from stages.core.stage import Run
from stages.datasets.base import SPLITS
from stages.encoding.options import EncodeOptions
from stages.encoding.views import VIEWS
from stages.stores.latent_format import (
    FORMAT,
    VERSION,
    LatentHeader,
    Rows,
    View,
    code_type,
    column_types,
)
from stages.stores.latent_pieces import LatentPieces
from stages.stores.latent_shards import write_split
from stages.stores.latent_statistics import code_figures, latent_scale
from stages.stores.prepared import Prepared, PreparedSplit

__all__ = ["encode_dataset"]

# Validation and test are judged on the images as they are.
EVALUATION_VIEWS: tuple[View, ...] = ("identity",)


def encode_dataset(
    prepared: Prepared,
    first_stage: FirstStage,
    options: EncodeOptions,
    run: Run,
    device: torch.device,
    output: Path,
) -> None:
    """Encode all splits of a data set.

    Args:
        prepared: The images.
        first_stage: The autoencoder, on `device`.
        options: What to store.
        run: Gives the work folder, the stop event and the tracker.
        device: Where to compute.
        output: Folder of the latent data set.

    Raises:
        ArtifactError: If the autoencoder is for other images, or gives nothing usable; or if hosts
            do not share the work folder.
        Interrupted: If asked to stop; finished pieces are kept.
    """
    started = time.perf_counter()
    _require_fit(prepared, first_stage)
    splits = {name: prepared.split(name) for name in SPLITS}
    pieces = {}
    for name, split in splits.items():
        views = options.views if name == "train" else EVALUATION_VIEWS
        pieces[name] = LatentPieces(
            run.work / "pieces" / name, len(split.images), options.batch_size, len(views)
        )
        _encode_split(name, split, pieces[name], views, first_stage, run, device)
    barrier()
    _require_shared_folder(pieces)
    header = from_first(
        _header(prepared, first_stage, options, pieces["train"]) if run.is_first else None
    )
    shards = run.work / "shards"
    shards.mkdir(exist_ok=True)
    names = {}
    for name, split in splits.items():
        names[name] = _write(shards, name, split, pieces[name], header, options.rows_per_shard)
        run.raise_if_stopped()
    barrier()
    if not run.is_first:
        return
    about: dict[str, Any] = {"header": header.model_dump(mode="json"), "splits": {}}
    with new_artifact(output, "latents", about) as folder:
        for name, split in splits.items():
            for shard in names[name]:
                _link(shards / shard, folder / shard)
            about["splits"][name] = _about_split(split, name, pieces[name], header, names[name])
            if header.kind == "codes":
                parts = first_stage.autoencoder.codebook_parts
                about["splits"][name] |= code_figures(pieces[name], header.num_codes, parts)
    shutil.rmtree(shards)
    run.tracker.log_metrics(_figures(about, header) | {"seconds": time.perf_counter() - started})


def _require_fit(prepared: Prepared, first_stage: FirstStage) -> None:
    if prepared.image_shape != first_stage.image:
        raise ArtifactError(
            f"{prepared.artifact.path} holds images of {tuple(prepared.image_shape)}, but the "
            f"autoencoder takes {tuple(first_stage.image)} (channels, height, width); train it on "
            "these images (`dvc repro`)"
        )
    classes = first_stage.autoencoder.num_classes
    if classes != prepared.num_classes and classes:
        raise ArtifactError(
            f"{prepared.artifact.path} has {prepared.num_classes} classes, but the autoencoder is "
            f"conditioned on {classes}; train it on these images (`dvc repro`)"
        )


def _encode_split(
    name: str,
    split: PreparedSplit,
    pieces: LatentPieces,
    views: tuple[View, ...],
    first_stage: FirstStage,
    run: Run,
    device: torch.device,
) -> None:
    rank, size = world()
    # Divided as they are missing now, whoever had them before.
    mine = from_first(pieces.missing())[rank::size]
    left = sum(len(pieces.images(piece)) for piece in mine)
    total = pieces.num_images if size == 1 else left
    with progress(total, total - left, "image", f"encode {name}") as bar:
        for piece in mine:
            run.raise_if_stopped()
            chosen = pieces.images(piece)
            pixels = np.array(split.images[chosen.start : chosen.stop])
            images = from_pixels(torch.from_numpy(pixels).to(device))
            labels = None
            if first_stage.autoencoder.num_classes and split.labels is not None:
                labels = torch.from_numpy(split.labels[chosen.start : chosen.stop]).to(device)
            rows = _latents(images, labels, views, first_stage)
            _require_finite(rows, f"images {chosen.start} to {chosen.stop - 1} of {name}")
            pieces.write(piece, rows)
            bar.advance(len(chosen))
    run.raise_if_stopped()


def _latents(
    images: Images, labels: Labels | None, views: tuple[View, ...], first_stage: FirstStage
) -> Rows:
    """Latents of all views of some images, image by image, in the bottleneck's own units."""
    spec = first_stage.autoencoder.spec
    # Exact float32: TensorFloat-32 would move features across the borders between codes.
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        encoded = [first_stage.autoencoder.encode(VIEWS[view](images), labels) for view in views]
    if spec.kind == "codes":
        codes = _image_major(encoded)
        assert codes.min() >= 0 and codes.max() < spec.num_codes, "codes outside the alphabet"
        return {"codes": codes.astype(code_type(spec.num_codes))}
    fields = ("mean",) if spec.deterministic else ("mean", "log_variance")
    return {
        field: _image_major([getattr(posterior, field) for posterior in encoded]).astype(np.float32)
        for field in fields
    }


def _image_major(views: list[Tensor]) -> np.ndarray:
    stacked = torch.stack(views, dim=1).cpu().numpy()
    return stacked.reshape(stacked.shape[0] * stacked.shape[1], -1)


def _require_finite(rows: Rows, where: str) -> None:
    for name, values in rows.items():
        if not np.isfinite(values).all():
            raise ArtifactError(
                f"the autoencoder gives a {name} that is not a finite number for {where}; its "
                "training diverged: train it again with a lower learning rate"
            )


def _header(
    prepared: Prepared, first_stage: FirstStage, options: EncodeOptions, train: LatentPieces
) -> LatentHeader:
    spec: LatentSpec = first_stage.autoencoder.spec
    names = prepared.class_names
    return LatentHeader(
        format=FORMAT,
        version=VERSION,
        kind=spec.kind,
        grid_height=spec.grid_height,
        grid_width=spec.grid_width,
        num_codes=spec.num_codes,
        channels=spec.channels,
        scale=1.0 if spec.kind == "codes" else latent_scale(train),
        deterministic=spec.deterministic,
        parts=spec.parts,
        posterior=spec.posterior,
        reference=spec.reference,
        precision=options.precision,
        views=options.views,
        num_classes=prepared.num_classes,
        class_names=None if names is None else tuple(names),
        autoencoder=first_stage.artifact.digest,
        prepared=prepared.artifact.digest,
        first_stage=first_stage.params.model_dump(mode="json"),
    )


def _write(
    folder: Path,
    name: str,
    split: PreparedSplit,
    pieces: LatentPieces,
    header: LatentHeader,
    rows_per_shard: int,
) -> list[str]:
    """Write this process's files of a split; the names of all."""
    views = header.views if name == "train" else EVALUATION_VIEWS
    positions = np.array([header.views.index(view) for view in views], dtype=np.int8)

    def read(start: int, stop: int) -> Rows:
        rows = np.arange(start, stop)
        columns = {"index": rows // len(views), "view": positions[rows % len(views)]}
        if split.labels is not None:
            columns["label"] = split.labels[columns["index"]].astype(np.int64)
        latents = pieces.read(start, stop)
        return columns | (latents if header.kind == "codes" else _scaled(latents, header, name))

    return write_split(folder, name, header, pieces.num_rows, rows_per_shard, read, share=world())


def _about_split(
    split: PreparedSplit, name: str, pieces: LatentPieces, header: LatentHeader, shards: list[str]
) -> dict[str, Any]:
    """What the manifest says of a split."""
    views = header.views if name == "train" else EVALUATION_VIEWS
    about: dict[str, Any] = {
        "images": pieces.num_images,
        "rows": pieces.num_rows,
        "views": list(views),
        "shards": shards,
    }
    if split.labels is not None:
        classes = np.bincount(np.asarray(split.labels), minlength=header.num_classes)
        about["images_per_class"] = classes.tolist()
    return about


def _scaled(latents: Rows, header: LatentHeader, split: str) -> Rows:
    """Continuous latents as they are stored: mean * scale, log_variance + 2 log(scale)."""
    stored = {"mean": latents["mean"].astype(np.float64) * header.scale}
    if "log_variance" in latents:
        shift = 2 * math.log(header.scale)
        stored["log_variance"] = latents["log_variance"].astype(np.float64) + shift
    for name, values in stored.items():
        limit, largest = float(np.finfo(header.precision).max), float(np.abs(values).max())
        if largest > limit:
            raise ParamsError(
                f"encode.precision: {header.precision} holds numbers up to {limit:g}, but {name} "
                f"of split {split} reaches {largest:g}; use float32"
            )
    return {name: values.astype(column_types(header)[name][0]) for name, values in stored.items()}


def _require_shared_folder(pieces: dict[str, LatentPieces]) -> None:
    for name, split in pieces.items():
        if missing := split.missing():
            raise ArtifactError(
                f"encode: {len(missing)} finished pieces of {name} are not to be seen in "
                f"{split.folder.resolve()}: hosts that encode together must share the project's "
                "folder; mount it on all of them, or set compute.hosts: 1"
            )


def _link(source: Path, target: Path) -> None:
    """The same file under another name; a copy where the file system has no links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)


def _figures(about: dict[str, Any], header: LatentHeader) -> dict[str, float]:
    figures = {"latent_scale": header.scale}
    for name, split in about["splits"].items():
        for key in ("rows", "code_usage", "code_perplexity"):
            if key in split:
                figures[f"{name}_{key}"] = float(split[key])
    return figures
