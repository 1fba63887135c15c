"""From prepared images on disk to codes in Parquet files with their manifest, as `encode` does it.

Images are noise of Fashion-MNIST's shape, 28 x 28 in grey: what they show does not change the time.
What forward passes alone take is the ceiling: the same batches, float32 in memory beforehand.
"""

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from benchmarks.autoencoder_step.contest import OURS_CONV, make_autoencoder
from benchmarks.side_by_side.contest import Contender, Contest
from stages.assembly.first_stage import FirstStage, FirstStageParams
from stages.core.artifacts import Artifact, new_artifact
from stages.core.intensities import from_pixels
from stages.core.sections import parse_params
from stages.core.shapes import ImageShape
from stages.core.stage import Run
from stages.core.tracking import NullTracker
from stages.encoding.dataset import encode_dataset
from stages.encoding.options import EncodeOptions
from stages.stores.prepared import PreparedWriter, open_prepared

__all__ = ["encoding_contest", "encoding_run"]

IMAGE = ImageShape(1, 28, 28)
CPU = torch.device("cpu")
_SECTIONS = OURS_CONV | {"backbone": OURS_CONV["backbone"] | {"widths": [32, 64]}}


def encoding_contest(folder: Path, images: int, batch: int, seed: int) -> Contest:
    """Ours and its forward passes."""
    network = make_autoencoder(seed, _SECTIONS, IMAGE).eval()
    return Contest(
        "encoding to codes",
        f"{images} images of 28 x 28",
        "images",
        (
            Contender("ours", "ours", encoding_run(folder, images, batch, seed), images),
            Contender("forward passes alone", "ceiling", _passes(network, images, batch), images),
        ),
    )


def encoding_run(folder: Path, images: int, batch: int, seed: int) -> Callable[[], object]:
    """All of the stage's work but loading the autoencoder; every run into a folder of its own."""
    network = make_autoencoder(seed, _SECTIONS, IMAGE).eval()
    params = parse_params(FirstStageParams, _SECTIONS, source="benchmark", strict=True)
    artifact = Artifact(folder, "autoencoder", "0" * 64, {}, {})
    first_stage = FirstStage(network, IMAGE, 0, artifact, params)
    options = EncodeOptions(
        views=("identity",), batch_size=batch, rows_per_shard=65_536, precision="float32"
    )
    _prepare(folder / "prepared", images, seed)
    prepared = open_prepared(folder / "prepared")
    numbers = itertools.count()

    def run() -> None:
        place = folder / f"run {next(numbers)}"
        (place / "work").mkdir(parents=True)
        work = Run("encode", place / "work", {}, NullTracker(), threading.Event())
        encode_dataset(prepared, first_stage, options, work, CPU, place / "latents")

    return run


def _pixels(images: int, seed: int) -> np.ndarray:
    numbers = np.random.default_rng(seed)
    return numbers.integers(0, 256, (images, *IMAGE), dtype=np.uint8)


def _prepare(folder: Path, images: int, seed: int) -> None:
    about = {"image_shape": list(IMAGE), "class_names": None}
    with new_artifact(folder, "prepared", about) as building:
        with PreparedWriter(building, IMAGE) as writer:
            # All but a few are training images: the other splits must not be empty.
            writer.add("train", _pixels(images - 2, seed), None, {})
            writer.add("validation", _pixels(1, seed), None, {})
            writer.add("test", _pixels(1, seed), None, {})


def _passes(network: torch.nn.Module, images: int, batch: int) -> Callable[[], object]:
    given = from_pixels(torch.from_numpy(_pixels(images, 0)))

    @torch.inference_mode()
    def run() -> None:
        for some in given.split(batch):
            network.encode(some, None)

    return run
