"""The second stage as an artifact: a prior with its head, and what it belongs to.

    config.json           the prior and head sections, the latents' shape and scale, the number of
                          classes and their names, the digests of the autoencoder and the latents
    weights.safetensors   its parameters; none for priors that learn nothing

A prior means something only together with the autoencoder whose latents it models: the digests
let its users refuse any other.
"""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from stages.bottlenecks.base import LatentSpec
from stages.core.artifacts import (
    Artifact,
    open_artifact,
    read_weights,
    reading,
    write_json,
    write_weights,
)
from stages.core.errors import ArtifactError, LatentlineError
from stages.core.sections import Section, load_member, parse_params
from stages.heads.base import HeadOptions
from stages.priors.base import Prior, PriorOptions

__all__ = [
    "SecondStage",
    "SecondStageParams",
    "build_second_stage",
    "load_second_stage",
    "save_second_stage",
]

_CONFIG, _WEIGHTS = "config.json", "weights.safetensors"


class SecondStageParams(Section):
    """The sections of params.yaml that make a prior."""

    prior: PriorOptions
    head: HeadOptions


@dataclass(frozen=True)
class SecondStage:
    """A trained prior, ready to use."""

    prior: Prior
    """In evaluation mode, on the device asked for."""
    artifact: Artifact
    autoencoder_digest: str
    """The autoencoder whose latents it models."""
    latents_digest: str
    """The latents it was trained on."""
    class_names: list[str] | None
    """Of the classes it can be conditioned on, where the data name them."""
    params: SecondStageParams


def build_second_stage(params: SecondStageParams, spec: LatentSpec, num_classes: int) -> Prior:
    """A new prior over latents like `spec`.

    Args:
        params: Its sections; a wider section that has them will do.
        spec: What the bottleneck stores.
        num_classes: Classes in the data; 0: none.

    Raises:
        ParamsError: If prior, head and latents do not go together.
    """
    return load_member(Prior, params.prior.kind)(params.prior, params.head, spec, num_classes)


def save_second_stage(
    folder: Path,
    prior: Prior,
    params: SecondStageParams,
    autoencoder_digest: str,
    latents_digest: str,
    class_names: list[str] | None = None,
) -> None:
    """Write a prior into the folder of an artifact that is being built.

    Args:
        folder: Where to.
        prior: What was trained.
        params: Its sections; a wider section that has them will do.
        autoencoder_digest: Names the autoencoder whose latents it models.
        latents_digest: Names the latents it was trained on.
        class_names: For those who sample from it; None where the data have none.
    """
    config = {
        "sections": {
            "prior": params.prior.model_dump(mode="json"),
            "head": params.head.model_dump(mode="json"),
        },
        "spec": asdict(prior.spec),
        "num_classes": prior.num_classes,
        "class_names": class_names,
        "autoencoder": autoencoder_digest,
        "latents": latents_digest,
    }
    write_json(folder / _CONFIG, config)
    write_weights(folder / _WEIGHTS, prior.state_dict())


def load_second_stage(path: Path, device: torch.device) -> SecondStage:
    """Read a prior back.

    Raises:
        ArtifactError: If it is missing, damaged, or of a form this version does not know.
    """
    artifact = open_artifact(path, "prior")
    with reading(artifact, _CONFIG) as config_path:
        config = json.loads(config_path.read_text(encoding="utf-8"))
    try:
        params = parse_params(
            SecondStageParams, config["sections"], source=str(config_path), strict=True
        )
        prior = build_second_stage(params, _spec(config["spec"]), config["num_classes"])
        prior.load_state_dict(read_weights(artifact, _WEIGHTS))
        about = config["autoencoder"], config["latents"], config["class_names"]
    except ArtifactError:
        raise
    except (LatentlineError, KeyError, TypeError, RuntimeError) as error:
        raise ArtifactError(
            f"{path}: a prior of another version ({error}); train it again: `dvc repro train_prior`"
        ) from None
    return SecondStage(prior.requires_grad_(False).eval().to(device), artifact, *about, params)


def _spec(stored: dict[str, Any]) -> LatentSpec:
    # JSON has lists only; a spec is compared with others.
    tuples = {"parts": tuple(map(tuple, stored["parts"])), "reference": tuple(stored["reference"])}
    return LatentSpec(**stored | tuples)
