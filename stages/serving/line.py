"""The trained line with the test images at hand: what a page shows is asked of this.

All images are 8-bit pixels, (channels, height, width). What the line does not have (classes, a
codebook, dimensions) is refused with a message that says so.
"""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stages.assembly.first_stage import FirstStage
from stages.core.intensities import from_pixels
from stages.core.shapes import Labels
from stages.evaluation.observe import evenly_spaced
from stages.evaluation.traversals import variances
from stages.nn.distributions import Posterior
from stages.sampling.options import SamplingOptions
from stages.sampling.picture import class_caption
from stages.sampling.trained import PATHS, Trained, needed_paths, open_trained
from stages.stores.prepared import PreparedSplit, open_prepared

__all__ = ["Dimensions", "OpenedLine", "Picture", "open_line"]

_MEASURED = 256
"""Test images that say how far a latent dimension goes."""
_BATCH = 32

Pixels = UInt8[np.ndarray, "channels height width"]


@dataclass(frozen=True)
class Picture:
    """An image with its class, where the line knows classes."""

    name: str
    pixels: Pixels
    label: int | None


@dataclass(frozen=True)
class Dimensions:
    """Latent numbers as they stand over test images."""

    mean: Float[Tensor, "channels grid_height grid_width"]
    deviation: Float[Tensor, "channels grid_height grid_width"]
    carried: Float[Tensor, "channels grid_height grid_width"]
    """KL in nats, or of points their variance."""
    unit: str


@dataclass(frozen=True)
class OpenedLine:
    """Everything a page needs."""

    trained: Trained
    options: SamplingOptions
    test: PreparedSplit | None
    """None where only the models are here."""

    @property
    def first(self) -> FirstStage:
        """The autoencoder."""
        return self.trained.first

    @property
    def has_codes(self) -> bool:
        """Whether latents are codes."""
        return self.trained.second.prior.spec.kind == "codes"

    @property
    def class_names(self) -> list[str]:
        """Names of the classes that can be asked for; empty: none."""
        names = self.trained.second.class_names
        return [class_caption(label, names) for label in range(self.trained.num_classes)]

    def test_picture(self, number: int) -> Picture:
        """A test image."""
        assert self.test is not None
        known = self.test.labels is not None and self.trained.num_classes
        label = int(self.test.labels[number]) if known else None  # type: ignore[index]
        return Picture(f"test image {number}", np.array(self.test.images[number]), label)

    @torch.inference_mode()
    def latents(self, pictures: list[Picture]) -> Tensor:
        """What is stored of these: codes, or the scaled means of their posteriors."""
        stored = self._encoded(pictures)
        if isinstance(stored, Tensor):
            return stored
        scale = self.trained.second.prior.spec.scale
        return (stored.mean.double() * scale).float()

    @torch.inference_mode()
    def decoded(
        self, latents: Tensor, label: int | None
    ) -> UInt8[np.ndarray, "count channels height width"]:
        """Latents as stored, to images; all of one class."""
        scale = self.trained.second.prior.spec.scale
        pieces = [
            self.first.pixels(piece, scale, self._labels([label] * len(piece))).cpu()
            for piece in latents.to(self.trained.device).split(_BATCH)
        ]
        return torch.cat(pieces).numpy()

    @cached_property
    def dimensions(self) -> Dimensions:
        """Of continuous latents, measured on evenly spaced test images."""
        assert self.test is not None and not self.has_codes
        numbers = evenly_spaced(len(self.test), _MEASURED)
        pictures = [self.test_picture(int(number)) for number in numbers]
        with torch.inference_mode():
            stored = self._encoded(pictures)
        assert not isinstance(stored, Tensor)
        scale = self.trained.second.prior.spec.scale
        means = (stored.mean.double() * scale).cpu()
        spread = means.var(dim=0, correction=0)
        if self.trained.second.prior.spec.deterministic:
            carried, unit = variances(means.float(), scale), "variance"
        else:
            carried, unit = stored.kl_per_number().mean(dim=0).cpu(), "nats"
            spread = spread + (stored.log_variance.double().exp().mean(dim=0) * scale**2).cpu()
        return Dimensions(means.mean(dim=0), spread.sqrt(), carried.double(), unit)

    def _encoded(self, pictures: list[Picture]) -> Tensor | Posterior:
        pixels = torch.from_numpy(np.stack([picture.pixels for picture in pictures]))
        labels = self._labels([picture.label for picture in pictures])
        images = from_pixels(pixels.to(self.trained.device))
        return self.first.autoencoder.encode(images, labels)

    def _labels(self, labels: list[int | None]) -> Labels | None:
        if not self.first.autoencoder.num_classes or None in labels:
            return None
        return torch.tensor(labels, device=self.trained.device)


def open_line(data: Path, options: SamplingOptions, device: torch.device) -> OpenedLine:
    """Open the models of a folder, and its test images if they are there.

    Args:
        data: Folder of prior, autoencoder, perhaps judge and prepared.
        options: What is not asked for.
        device: Where to compute.

    Raises:
        ArtifactError: If a part is missing or damaged, or parts do not belong together.
    """
    paths = {type: data / PATHS[type].name for type in needed_paths(options)}
    trained = open_trained(paths, device)
    prepared = data / "prepared"
    test = open_prepared(prepared).split("test") if prepared.is_dir() else None
    fits = test is not None and test.images.shape[1:] == tuple(trained.first.image)
    return OpenedLine(trained, options, test if fits else None)
