"""The trained line as samplers use it: a prior, the decoder it belongs to, and perhaps a judge."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stages.assembly.first_stage import FirstStage, load_first_stage
from stages.assembly.judge import Judge, load_judge
from stages.assembly.second_stage import SecondStage, load_second_stage
from stages.core.errors import ArtifactError, ParamsError
from stages.core.randomness import torch_stream
from stages.core.shapes import Labels, Pixels
from stages.nn.stepping import with_steps
from stages.priors.base import Prior
from stages.sampling.draw import Decode, Opinion, Sampler
from stages.sampling.options import SamplingOptions

__all__ = ["PATHS", "Trained", "decoder", "needed_paths", "open_trained"]

PATHS = {
    "prior": Path("data/prior"),
    "autoencoder": Path("data/autoencoder"),
    "judge": Path("data/judge"),
}


@dataclass(frozen=True)
class Trained:
    """Parts that belong together, on one device."""

    first: FirstStage
    second: SecondStage
    judge: Judge | None
    """Where images are to be rejected."""
    device: torch.device

    @property
    def num_classes(self) -> int:
        """Classes that can be asked for; 0: none."""
        return max(self.second.prior.num_classes, self.first.autoencoder.num_classes)

    def sampler(self, options: SamplingOptions) -> Sampler:
        """What draws images under these options.

        Raises:
            ParamsError: If they ask for what the parts do not have.
        """
        opinion = None if self.judge is None else _opinion_of(self.judge)
        decode = decoder(self.first, self.second.prior.spec.scale, options, self.device)
        classes = self.first.autoencoder.num_classes
        return Sampler(self.second.prior, decode, options, self.device, classes, opinion)

    def walker(self, options: SamplingOptions) -> Prior:
        """The prior, in steps as these options say: to draw from, not for log-probabilities.

        Raises:
            ParamsError: If steps are to be compiled and there is no compiler.
        """
        return with_steps(self.second.prior, options.steps, self.device)


def needed_paths(options: SamplingOptions) -> dict[str, Path]:
    """Where the parts lie that these options need: no judge where none is asked."""
    return {type: path for type, path in PATHS.items() if type != "judge" or options.rejects}


def open_trained(paths: Mapping[str, Path], device: torch.device) -> Trained:
    """Load the parts.

    Args:
        paths: From `needed_paths`.
        device: Where to.

    Raises:
        ArtifactError: If a part is missing or damaged, or the prior models the latents of another
            autoencoder.
        ParamsError: If the judge cannot tell the classes apart that the line knows.
    """
    second = load_second_stage(paths["prior"], device)
    first = load_first_stage(paths["autoencoder"], device)
    if second.autoencoder_digest != first.artifact.digest:
        raise ArtifactError(
            f"{second.artifact.path}: models the latents of autoencoder "
            f"{second.autoencoder_digest}, but {first.artifact.path} is {first.artifact.digest}; "
            "bring them together again: `dvc repro train_prior`"
        )
    judge = load_judge(paths["judge"], device) if "judge" in paths else None
    trained = Trained(first, second, judge, device)
    if judge is not None and judge.config.num_classes < trained.num_classes:
        raise ParamsError(
            f"sampling.rejection_tries: must be 1 with a judge that was taught "
            f"{judge.config.taught} and knows {judge.config.num_classes} classes of the "
            f"{trained.num_classes} that can be drawn; teach it on the same data "
            "(`dvc repro train_judge`)"
        )
    return trained


def decoder(
    first: FirstStage, scale: float, options: SamplingOptions, device: torch.device
) -> Decode:
    """How latents become pixels: means, or draws from each image's own stream."""

    def means(latents: Tensor, labels: Labels | None, indices: np.ndarray) -> Pixels:
        return first.pixels(latents, scale, labels)

    def draws(latents: Tensor, labels: Labels | None, indices: np.ndarray) -> Pixels:
        streams = [
            torch_stream(options.seed, "pixels", int(index), device=device) for index in indices
        ]
        return first.drawn_pixels(latents, scale, labels, streams)

    return means if options.pixels == "mean" else draws


def _opinion_of(judge: Judge) -> Opinion:
    def probability(pixels: Pixels, labels: Labels) -> Float[Tensor, " count"]:
        probabilities = judge.logits(pixels).float().softmax(dim=1)
        return probabilities.gather(1, labels.unsqueeze(1)).squeeze(1)

    return probability
