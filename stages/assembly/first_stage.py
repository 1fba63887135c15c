"""The first stage in one piece: its members joined, saved, loaded, and turned into pixels.

An autoencoder artifact holds `weights.safetensors` and `config.json` (the members' parameters,
the shape of the images and the number of classes), which are enough to build the same network
again anywhere.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from stages.autoencoders.base import Autoencoder, AutoencoderOptions, Parts
from stages.backbones.base import Backbone, BackboneOptions
from stages.bottlenecks.base import Bottleneck, BottleneckOptions
from stages.core.artifacts import Artifact, open_artifact, read_weights, write_json, write_weights
from stages.core.errors import ArtifactError, ParamsError
from stages.core.intensities import to_pixels
from stages.core.sections import Section, load_member, parse_params
from stages.core.shapes import ImageShape, Labels, Pixels
from stages.likelihoods.base import Likelihood, LikelihoodOptions, Parameters
from stages.objectives.base import Objective, ObjectiveOptions

__all__ = [
    "AUTOENCODER",
    "FirstStage",
    "FirstStageParams",
    "build_first_stage",
    "load_first_stage",
    "save_first_stage",
]

AUTOENCODER = "autoencoder"
"""Type of the artifact."""
_CONFIG = "config.json"
_WEIGHTS = "weights.safetensors"


class FirstStageParams(Section):
    """The sections that say what the first stage is made of."""

    autoencoder: AutoencoderOptions
    backbone: BackboneOptions
    bottleneck: BottleneckOptions
    likelihood: LikelihoodOptions
    objective: ObjectiveOptions


@dataclass(frozen=True)
class FirstStage:
    """A trained autoencoder, frozen and in evaluation mode."""

    autoencoder: Autoencoder
    image: ImageShape
    num_classes: int
    """Classes of the data it was trained on; 0: none."""
    artifact: Artifact
    params: FirstStageParams

    @torch.no_grad()
    def parameters(self, latents: Tensor, scale: float, labels: Labels | None = None) -> Parameters:
        """Parameters of p(x given latents) for latents as stored.

        Args:
            latents: Codes, or continuous latents multiplied by `scale`.
            scale: `LatentSpec.scale` of the data set they belong to; this is the one place where
                it is undone.
            labels: Classes; needed by an autoencoder that looks at them.
        """
        own = latents / scale if latents.is_floating_point() else latents
        return self.autoencoder.decode(own, labels)

    @torch.no_grad()
    def pixels(self, latents: Tensor, scale: float, labels: Labels | None = None) -> Pixels:
        """E[x given latents] in 8 bits, for latents as stored; arguments as for `parameters`."""
        parameters = self.parameters(latents, scale, labels)
        return to_pixels(self.autoencoder.likelihood.mean(parameters))

    @torch.no_grad()
    def drawn_pixels(
        self,
        latents: Tensor,
        scale: float,
        labels: Labels | None,
        generators: Sequence[torch.Generator],
    ) -> Pixels:
        """A draw of p(x given latents) in 8 bits, each image from a generator of its own."""
        parameters = self.parameters(latents, scale, labels)
        sample = self.autoencoder.likelihood.sample
        drawn = [
            sample(parameters[index : index + 1], generator)
            for index, generator in enumerate(generators)
        ]
        return to_pixels(torch.cat(drawn))


def build_first_stage(
    params: FirstStageParams, image: ImageShape, num_classes: int = 0
) -> Autoencoder:
    """Join the members for images of this shape; weights from torch's global generator.

    Args:
        params: The sections; a wider section that has them will do.
        image: Shape of the images.
        num_classes: Classes in the data; 0: none.

    Raises:
        ParamsError: If the backbone cannot take such images, or the members do not go together.
    """
    likelihood = load_member(Likelihood, params.likelihood.kind)(params.likelihood, image)
    features = params.backbone.feature_shape(image)
    params.autoencoder.latent_spec(params.bottleneck, features, num_classes)
    backbone = load_member(Backbone, params.backbone.kind)(
        params.backbone, image, likelihood.num_parameters
    )
    bottleneck = load_member(Bottleneck, params.bottleneck.kind)
    parts = Parts(
        image=image,
        num_classes=num_classes,
        features=features,
        backbone=backbone,
        make_bottleneck=lambda shape: bottleneck(params.bottleneck, shape),
        bottleneck=params.bottleneck,
        likelihood=likelihood,
        objective=load_member(Objective, params.objective.kind)(params.objective),
    )
    return load_member(Autoencoder, params.autoencoder.kind)(params.autoencoder, parts)


def save_first_stage(
    folder: Path,
    autoencoder: Autoencoder,
    params: FirstStageParams,
    image: ImageShape,
    num_classes: int = 0,
) -> None:
    """Write weights and configuration into an artifact folder being built.

    Args:
        folder: What `new_artifact` yielded.
        autoencoder: What to save.
        params: What it was built from; further sections are left out.
        image: Shape of its images.
        num_classes: Classes in the data; 0: none.
    """
    sections = {
        name: getattr(params, name).model_dump(mode="json")
        for name in FirstStageParams.model_fields
    }
    config = {"image": image._asdict(), "num_classes": num_classes, "params": sections}
    write_json(folder / _CONFIG, config)
    write_weights(folder / _WEIGHTS, autoencoder.state_dict())


def load_first_stage(path: Path, device: torch.device) -> FirstStage:
    """Open a trained autoencoder, frozen, in evaluation mode, on `device`.

    Raises:
        ArtifactError: If the artifact is missing, damaged, of another type, or was written by code
            whose networks differ from these.
    """
    artifact = open_artifact(path, AUTOENCODER)
    config = artifact.verified(_CONFIG)
    weights = read_weights(artifact, _WEIGHTS)
    try:
        content = json.loads(config.read_text(encoding="utf-8"))
        image = ImageShape(**content["image"])
        params = parse_params(FirstStageParams, content["params"], source=str(config), strict=True)
        num_classes = int(content["num_classes"])
        autoencoder = build_first_stage(params, image, num_classes)
    except (ParamsError, ValueError, KeyError, TypeError) as error:
        raise ArtifactError(
            f"{config}: does not describe an autoencoder this code can build ({error}); "
            "train it again (`dvc repro train_autoencoder`)"
        ) from None
    _fill(autoencoder, weights, path / _WEIGHTS)
    autoencoder.requires_grad_(False).eval().to(device)
    return FirstStage(autoencoder, image, num_classes, artifact, params)


def _fill(autoencoder: Autoencoder, weights: dict[str, Tensor], source: Path) -> None:
    wanted: dict[str, Any] = {n: tuple(t.shape) for n, t in autoencoder.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    wrong = sorted(
        name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name)
    )
    if wrong:
        name = wrong[0]
        raise ArtifactError(
            f"{source}: {len(wrong)} tensors do not fit the networks of its {_CONFIG}; {name} must "
            f"be {wanted.get(name, 'absent')}, is {found.get(name, 'absent')}; "
            "train it again (`dvc repro train_autoencoder`)"
        )
    autoencoder.load_state_dict(weights)
