"""Stage `sample`: images drawn from the prior and decoded.

    python -m stages.sample

Reads data/prior and data/autoencoder, writes data/samples:

    images.npy       uint8 (count, channels, height, width)
    samples.parquet  index, seed, log_probability (nats, of the latents under the prior; the
                     manifest says whether exact or a bound); label and class_name where the prior
                     knows classes; codes (fixed-size list over the grid, in raster order) where
                     latents are codes
    samples.png      the first of every class

Image i depends on the seed and on i, not on how many are drawn or in what batches.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from stages.assembly.first_stage import FirstStage, load_first_stage
from stages.assembly.second_stage import SecondStage, load_second_stage
from stages.core.artifacts import Artifact, new_artifact
from stages.core.devices import Device, resolve_device
from stages.core.errors import ArtifactError
from stages.core.pictures import save_png
from stages.core.randomness import torch_stream
from stages.core.sections import Section
from stages.core.shapes import Labels, Pixels
from stages.core.stage import Run, run_stage
from stages.sampling.draw import Decode, Drawn, Sampler
from stages.sampling.options import SamplingOptions
from stages.sampling.picture import class_caption, picture_of_samples
from stages.sampling.pieces import draw_pieces, read_pieces
from stages.stores.latent_format import code_type

OUTPUT = Path("data/samples")


class Params(Section):
    """The sections this stage reads."""

    device: Device
    sampling: SamplingOptions


def sample(params: Params, run: Run) -> None:
    """Draw all images, then write them as one artifact."""
    device = resolve_device(params.device)
    second = load_second_stage(run.inputs["prior"].path, device)
    require_same_autoencoder(second, run.inputs["autoencoder"])
    first = load_first_stage(run.inputs["autoencoder"].path, device)
    sampler = Sampler(
        second.prior,
        decoder(first, second.prior.spec.scale, params.sampling, device),
        params.sampling,
        device,
        num_classes=first.autoencoder.num_classes,
    )
    draw_pieces(sampler, run)
    about: dict[str, Any] = {
        "autoencoder": first.artifact.digest,
        "prior": second.artifact.digest,
        "sampling": params.sampling.model_dump(mode="json"),
        "class_names": second.class_names if sampler.classes else None,
        "log_probability": second.prior.log_prob_is.how,
    }
    with new_artifact(OUTPUT, "samples", about) as folder:
        about["mean_log_probability"] = _write(folder, params.sampling, first, second, run)
    run.tracker.log_metrics({"mean_log_probability": about["mean_log_probability"]})
    run.tracker.log_image(OUTPUT / "samples.png", key="samples")


def decoder(
    first: FirstStage, scale: float, options: SamplingOptions, device: torch.device
) -> Decode:
    """How latents become pixels: means, or draws from each image's own stream."""

    def means(latents: torch.Tensor, labels: Labels | None, indices: np.ndarray) -> Pixels:
        return first.pixels(latents, scale, labels)

    def draws(latents: torch.Tensor, labels: Labels | None, indices: np.ndarray) -> Pixels:
        streams = [
            torch_stream(options.seed, "pixels", int(index), device=device) for index in indices
        ]
        return first.drawn_pixels(latents, scale, labels, streams)

    return means if options.pixels == "mean" else draws


def require_same_autoencoder(second: SecondStage, autoencoder: Artifact) -> None:
    """Refuse to decode the latents of one autoencoder with another.

    Raises:
        ArtifactError: Naming both.
    """
    if second.autoencoder_digest != autoencoder.digest:
        raise ArtifactError(
            f"{second.artifact.path}: models the latents of autoencoder "
            f"{second.autoencoder_digest}, but {autoencoder.path} is {autoencoder.digest}; "
            "bring them together again: `dvc repro train_prior`"
        )


def _write(
    folder: Path, options: SamplingOptions, first: FirstStage, second: SecondStage, run: Run
) -> float:
    """Write the files of the artifact; returns the mean log-probability in nats per image."""
    images = np.lib.format.open_memmap(
        folder / "images.npy", mode="w+", dtype=np.uint8, shape=(options.count, *first.image)
    )
    labels = np.empty(options.count, np.int64)
    log_probability = np.empty(options.count)
    schema = _schema(first, second)
    with pq.ParquetWriter(folder / "samples.parquet", schema) as writer:
        for start, drawn in read_pieces(options.count, options.batch_size, run.work):
            rows = slice(start, start + len(drawn.labels))
            images[rows] = drawn.images
            labels[rows] = drawn.labels
            log_probability[rows] = drawn.log_probability
            writer.write_table(_table(start, drawn, options.seed, second, schema))
    images.flush()
    names = second.class_names if "label" in schema.names else None
    save_png(picture_of_samples(images, labels, names), folder / "samples.png")
    return float(log_probability.mean())


def _schema(first: FirstStage, second: SecondStage) -> pa.Schema:
    spec = second.prior.spec
    columns = {"index": pa.int64(), "seed": pa.int64(), "log_probability": pa.float32()}
    if max(second.prior.num_classes, first.autoencoder.num_classes):
        columns |= {"label": pa.int64(), "class_name": pa.string()}
    if spec.kind == "codes":
        columns["codes"] = pa.list_(pa.from_numpy_dtype(code_type(spec.num_codes)), spec.tokens)
    return pa.schema(columns)


def _table(start: int, drawn: Drawn, seed: int, second: SecondStage, schema: pa.Schema) -> pa.Table:
    count = len(drawn.labels)
    columns = {
        "index": np.arange(start, start + count),
        "seed": np.full(count, seed),
        "log_probability": drawn.log_probability,
    }
    if "label" in schema.names:
        names = [class_caption(label, second.class_names) for label in drawn.labels.tolist()]
        columns |= {"label": drawn.labels, "class_name": names}
    if "codes" in schema.names:
        columns["codes"] = list(drawn.latents.reshape(count, -1))
    return pa.table(columns, schema=schema)


if __name__ == "__main__":
    run_stage(
        "sample",
        Params,
        sample,
        inputs={"prior": Path("data/prior"), "autoencoder": Path("data/autoencoder")},
    )
