"""Stage `sample`: images drawn from the prior and decoded.

    python -m stages.sample

Reads data/prior and data/autoencoder, writes data/samples:

    images.npy       uint8 (count, channels, height, width)
    samples.parquet  index, seed, log_probability (nats, of the latents under the prior; the
                     manifest says whether exact or a bound); label and class_name where the prior
                     knows classes; codes (fixed-size list over the grid, in raster order) where
                     latents are codes; candidate and judge_probability where a judge chose among
                     candidates
    samples.png      the first of every class

Image i depends on the seed and on i, not on how many are drawn or in what batches: raising `count`
goes on from the images that are there.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from stages.assembly.second_stage import SecondStage
from stages.core.artifacts import new_artifact
from stages.core.devices import Device, resolve_device
from stages.core.mapped_arrays import new_mapped_array
from stages.core.pictures import save_png
from stages.core.sections import Section
from stages.core.stage import Run, run_stage
from stages.sampling.draw import Drawn
from stages.sampling.options import SamplingOptions
from stages.sampling.picture import class_caption, picture_of_samples
from stages.sampling.pieces import draw_pieces, read_pieces
from stages.sampling.trained import Trained, needed_paths, open_trained
from stages.stores.latent_format import code_type

OUTPUT = Path("data/samples")


class Params(Section):
    """The sections this stage reads."""

    device: Device
    sampling: SamplingOptions


def sample(params: Params, run: Run) -> None:
    """Draw all images, then write them as one artifact."""
    paths = {type: artifact.path for type, artifact in run.inputs.items()}
    trained = open_trained(paths, resolve_device(params.device))
    first, second = trained.first, trained.second
    sampler = trained.sampler(params.sampling)
    draw_pieces(sampler, run)
    about: dict[str, Any] = {
        "autoencoder": first.artifact.digest,
        "prior": second.artifact.digest,
        "judge": None if trained.judge is None else trained.judge.artifact.digest,
        "sampling": params.sampling.model_dump(mode="json"),
        "class_names": second.class_names if sampler.classes else None,
        "log_probability": second.prior.log_prob_is.how,
    }
    with new_artifact(OUTPUT, "samples", about) as folder:
        about["mean_log_probability"] = _write(folder, params.sampling, trained, run)
    run.tracker.log_metrics({"mean_log_probability": about["mean_log_probability"]})
    run.tracker.log_image(OUTPUT / "samples.png", key="samples")


def _write(folder: Path, options: SamplingOptions, trained: Trained, run: Run) -> float:
    """Write the files of the artifact; returns the mean log-probability in nats per image."""
    first, second = trained.first, trained.second
    images = new_mapped_array(folder / "images.npy", np.uint8, (options.count, *first.image))
    labels = np.empty(options.count, np.int64)
    log_probability = np.empty(options.count)
    schema = _schema(trained)
    with pq.ParquetWriter(folder / "samples.parquet", schema) as writer:
        for start, drawn in read_pieces(options.count, run.kept):
            rows = slice(start, start + len(drawn.labels))
            images[rows] = drawn.images
            labels[rows] = drawn.labels
            log_probability[rows] = drawn.log_probability
            writer.write_table(_table(start, drawn, options.seed, second, schema))
    images.flush()
    names = second.class_names if "label" in schema.names else None
    save_png(picture_of_samples(images, labels, names), folder / "samples.png")
    return float(log_probability.mean())


def _schema(trained: Trained) -> pa.Schema:
    spec = trained.second.prior.spec
    columns = {"index": pa.int64(), "seed": pa.int64(), "log_probability": pa.float32()}
    if trained.num_classes:
        columns |= {"label": pa.int64(), "class_name": pa.string()}
    if spec.kind == "codes":
        columns["codes"] = pa.list_(pa.from_numpy_dtype(code_type(spec.num_codes)), spec.tokens)
    if trained.judge is not None:
        columns |= {"candidate": pa.int32(), "judge_probability": pa.float32()}
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
    if "candidate" in schema.names:
        columns |= {"candidate": drawn.candidate, "judge_probability": drawn.judged}
    return pa.table(columns, schema=schema)


if __name__ == "__main__":
    run_stage(
        "sample",
        Params,
        sample,
        inputs=lambda params: needed_paths(params.sampling),
        grows=("sampling.count", "sampling.batch_size"),
    )
