"""A whole line in miniature, untrained: every artifact is real, made by the code that makes it."""

import threading
from pathlib import Path
from typing import Any

import numpy as np
import torch

from stages.assembly.first_stage import (
    FirstStageParams,
    build_first_stage,
    load_first_stage,
    save_first_stage,
)
from stages.assembly.judge import JudgeConfig, build_judge, save_judge
from stages.assembly.second_stage import SecondStageParams, build_second_stage, save_second_stage
from stages.core.artifacts import new_artifact, open_artifact
from stages.core.sections import parse_params
from stages.core.shapes import ImageShape
from stages.core.stage import Run
from stages.core.tracking import Tracker
from stages.encoding.dataset import encode_dataset
from stages.encoding.options import EncodeOptions
from stages.sample import Params as SampleParams
from stages.sample import sample
from stages.stores.latents import open_latents
from stages.stores.prepared import PreparedWriter, open_prepared
from tests.backbones.examples import conv
from tests.objectives.examples import ELBO
from tests.priors.sections import TRANSFORMER

IMAGE = ImageShape(channels=1, height=8, width=12)
COUNTS = {"train": 23, "validation": 5, "test": 17}
CPU = torch.device("cpu")

CODES: dict[str, Any] = {
    "bottleneck": {
        "kind": "ema_vq",
        "num_codes": 7,
        "dim": 3,
        "commitment_weight": 0.25,
        "gradient": "straight_through",
        "decay": 0.9,
        "revive_below": 0.0,
        "kmeans_iterations": 0,
        "kmeans_vectors": 64,
    },
    "likelihood": {"kind": "discretized_logistic", "num_mixtures": 2, "channels": "independent"},
    "prior": TRANSFORMER | {"layers": 1, "width": 8, "label_dropout": 0.0},
    "head": {"kind": "categorical", "tied": False},
}
CONTINUOUS: dict[str, Any] = {
    "bottleneck": {"kind": "gaussian", "layout": "spatial", "channels": 2},
    "likelihood": {"kind": "discretized_logistic", "num_mixtures": 2, "channels": "independent"},
    "prior": {"kind": "standard_normal"},
    "head": {"kind": "mixture", "components": 2, "std_floor": 1e-3, "guidance_candidates": 2},
}
POINTS: dict[str, Any] = {
    **CONTINUOUS,
    "bottleneck": {"kind": "identity", "layout": "spatial", "channels": 2},
    "likelihood": {"kind": "gaussian", "sigma": "fixed", "value": 0.1, "decay": 0.99},
}
POSITIVE: dict[str, Any] = {
    **CONTINUOUS,
    "bottleneck": {
        "kind": "gamma",
        "layout": "spatial",
        "channels": 2,
        "prior_concentration": 2.0,
        "prior_rate": 0.5,
        "kl_draws": 0,
    },
    "likelihood": {"kind": "bernoulli", "binarise": "dynamic"},
    "prior": {"kind": "reference"},
}
SHARED: dict[str, Any] = {
    "autoencoder": {"kind": "flat"},
    "objective": ELBO,
    "backbone": conv([12], 0),
}
SAMPLING = {
    "count": 12,
    "seed": 5,
    "classes": [],
    "temperature": 1.0,
    "top_k": 0,
    "top_p": 1.0,
    "pixels": "mean",
    "guidance": 1.0,
    "batch_size": 12,
    "min_p": 0.0,
    "variance_temperature": 1.0,
    "guidance_schedule": "constant",
    "guidance_power": 1.0,
    "guidance_interval": [0.0, 1.0],
    "rejection_tries": 1,
    "rejection_threshold": 1.0,
    "compile": False,
    "precision": "float32",
}


class Record(Tracker):
    """Keeps what was logged."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self.files: list[str] = []
        self.tags: dict[str, str] = {}

    def _append(self, kind: str, file: Path | None = None, **fields: Any) -> None:
        self.metrics |= fields.get("metrics", {})
        if kind == "tag":
            self.tags[fields["name"]] = fields["value"]
        if file is not None:
            assert file.is_file()
            self.files.append(file.name)

    def identity(self) -> dict[str, Any]:
        return {"run_id": "a1", "experiment_id": "7", "tracking_uri": "http://tracker.example"}

    def close(self, status: str) -> None:
        return None


def run_of(stage: str, folder: Path, *inputs: str) -> Run:
    """A run over artifacts in `folder`/data."""
    opened = {name: open_artifact(folder / "data" / name, name) for name in inputs}
    work = folder / ".work" / stage
    work.mkdir(parents=True, exist_ok=True)
    return Run(stage, work, opened, Record(), threading.Event())


def make_line(folder: Path, system: dict[str, Any], class_names: list[str] | None) -> None:
    """Make every artifact that `evaluate` reads below `folder`/data, which is the work folder."""
    torch.manual_seed(0)
    make_prepared(folder, class_names)
    make_judge(folder)
    params = parse_params(FirstStageParams, {**SHARED, **system}, source="test", strict=False)
    prepared = open_prepared(folder / "data/prepared")
    about = {"prepared": prepared.artifact.digest}
    with new_artifact(folder / "data/autoencoder", "autoencoder", about) as building:
        save_first_stage(building, build_first_stage(params, IMAGE), params, IMAGE)
    options = EncodeOptions(
        views=("identity",), batch_size=8, rows_per_shard=16, precision="float32"
    )
    first = load_first_stage(folder / "data/autoencoder", CPU)
    encode_dataset(prepared, first, options, run_of("encode", folder), CPU, folder / "data/latents")
    make_prior(folder, system, class_names)
    sampling = parse_params(
        SampleParams, {"device": "cpu", "sampling": SAMPLING}, source="test", strict=True
    )
    sample(sampling, run_of("sample", folder, "prior", "autoencoder"))


def make_prepared(folder: Path, class_names: list[str] | None) -> None:
    random = np.random.default_rng(0)
    about = {"image_shape": list(IMAGE), "class_names": class_names}
    with (
        new_artifact(folder / "data/prepared", "prepared", about) as building,
        PreparedWriter(building, IMAGE) as writer,
    ):
        for split, count in COUNTS.items():
            images = random.integers(0, 256, (count, *IMAGE), dtype=np.uint8)
            labels = np.arange(count) % len(class_names) if class_names else None
            writer.add(split, images, labels, {})


def make_judge(folder: Path, width: int = 8) -> None:
    prepared = open_prepared(folder / "data/prepared")
    config = JudgeConfig.model_validate(
        {"judge": {"width": width}, "image": IMAGE, "num_classes": prepared.num_classes}
    )
    about = {"prepared": prepared.artifact.digest, "test_accuracy": 0.5}
    with new_artifact(folder / "data/judge", "judge", about) as building:
        save_judge(building, build_judge(config), config)


def make_prior(folder: Path, system: dict[str, Any], class_names: list[str] | None) -> None:
    latents = open_latents(folder / "data/latents", scratch=folder / "scratch")
    params = parse_params(SecondStageParams, system, source="test", strict=False)
    prior = build_second_stage(params, latents.spec, latents.num_classes)
    with new_artifact(folder / "data/prior", "prior", {}) as building:
        save_second_stage(
            building,
            prior,
            params,
            latents.autoencoder_digest,
            latents.artifact.digest,
            class_names,
        )
