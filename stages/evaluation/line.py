"""The finished line as one object: every part, and the proof that they belong together.

Each artifact names the artifacts it was made from by digest. A prior of another autoencoder, or
samples of another prior, would give figures of nothing: they are refused, both named.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
import torch

from stages.assembly.first_stage import FirstStage, load_first_stage
from stages.assembly.judge import Judge, load_judge
from stages.assembly.second_stage import SecondStage, load_second_stage
from stages.core.artifacts import Artifact, read_array, reading
from stages.core.errors import ArtifactError
from stages.core.stage import Run
from stages.stores.latents import LatentDataset, open_latents
from stages.stores.prepared import Prepared, open_prepared

__all__ = ["Line", "Samples", "open_line", "open_samples", "require_belonging"]


@dataclass(frozen=True)
class Samples:
    """What the stage `sample` left."""

    artifact: Artifact
    images: np.ndarray
    """uint8 (count, channels, height, width), memory-mapped."""
    labels: np.ndarray | None
    """Class asked for, int64 (count,); None for an unconditional prior."""


@dataclass(frozen=True)
class Line:
    """Every part of the line, on one device."""

    prepared: Prepared
    judge: Judge
    first_stage: FirstStage
    latents: LatentDataset
    second_stage: SecondStage
    samples: Samples

    @property
    def artifacts(self) -> dict[str, Artifact]:
        """The parts by type, in the order they are made."""
        parts = (
            self.prepared.artifact,
            self.judge.artifact,
            self.first_stage.artifact,
            self.latents.artifact,
            self.second_stage.artifact,
            self.samples.artifact,
        )
        return {artifact.type: artifact for artifact in parts}

    def class_name(self, label: int) -> str:
        """What to call a class."""
        names = self.prepared.class_names
        return names[label] if names else str(label)


def open_line(run: Run, device: torch.device) -> Line:
    """Open all inputs of the stage.

    Raises:
        ArtifactError: If a part is missing or damaged, or was made from another than the one here.
    """
    path = {type: artifact.path for type, artifact in run.inputs.items()}
    line = Line(
        prepared=open_prepared(path["prepared"]),
        judge=load_judge(path["judge"], device),
        first_stage=load_first_stage(path["autoencoder"], device),
        latents=open_latents(path["latents"]),
        second_stage=load_second_stage(path["prior"], device),
        samples=open_samples(run.inputs["samples"]),
    )
    require_belonging(line.artifacts, _made_from(line))
    return line


def open_samples(artifact: Artifact) -> Samples:
    """Open the samples, memory-mapped, after verifying their bytes.

    Raises:
        ArtifactError: If a file is damaged or cannot be read.
    """
    images = read_array(artifact, "images.npy", mapped=True)
    with reading(artifact, "samples.parquet") as path:
        table = pd.read_parquet(path)
    labels = table["label"].to_numpy(np.int64) if "label" in table else None
    return Samples(artifact, images, labels)


def _made_from(line: Line) -> list[tuple[str, str, str]]:
    """(part, what it was made from, digest it names)."""
    about = {type: artifact.about for type, artifact in line.artifacts.items()}
    judge = about["samples"]["judge"]
    return [
        ("judge", "prepared", about["judge"]["prepared"]),
        ("autoencoder", "prepared", about["autoencoder"]["prepared"]),
        ("latents", "prepared", line.latents.header.prepared),
        ("latents", "autoencoder", line.latents.autoencoder_digest),
        ("prior", "autoencoder", line.second_stage.autoencoder_digest),
        ("prior", "latents", line.second_stage.latents_digest),
        ("samples", "prior", about["samples"]["prior"]),
        ("samples", "autoencoder", about["samples"]["autoencoder"]),
        *([] if judge is None else [("samples", "judge", judge)]),
    ]


def require_belonging(
    artifacts: dict[str, Artifact], made_from: list[tuple[str, str, str]]
) -> None:
    """Refuse parts that were not made from each other.

    Args:
        artifacts: The parts at hand, by type.
        made_from: (part, what it was made from, digest of that), by type.

    Raises:
        ArtifactError: Naming both parts and both digests.
    """
    for part, source, digest in made_from:
        here = artifacts[source]
        if digest != here.digest:
            raise ArtifactError(
                f"{artifacts[part].path} was made from {source} {digest}, but {here.path} is "
                f"{here.digest}; use the {source} it belongs to, or make the {part} again "
                "(`dvc repro`)"
            )
