"""The perceptual loss of the first stage: reconstructions should look like their images.

    perceptual = weight * mean over images of LPIPS(x, E[x given z])

beside the loss in nats per dim. Squared errors are smallest for the mean of all that might be
there, a blur; a distance in the features of a trained network also counts the missing texture
(Johnson et al. 2016, arXiv:1603.08155; with LPIPS: Esser et al. 2021, arXiv:2012.09841). The term
has no unit and is no part of the bound on the likelihood.
"""

from pathlib import Path

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from stages.core.sections import Section
from stages.core.shapes import Images, ImageShape
from stages.nn.lpips import open_lpips, resize_rule

__all__ = ["Perceptual", "PerceptualOptions"]


class PerceptualOptions(Section):
    """The `perceptual` section."""

    weight: float = Field(ge=0)
    """Of the mean LPIPS distance, beside nats per dim; 0: off."""
    weights: str
    """Folder with squeezenet1_1.pth and squeeze.pth; not looked at where `weight` is 0."""

    @model_validator(mode="after")
    def _check(self) -> "PerceptualOptions":
        if self.weight and not self.weights:
            raise ValueError(
                "weights must name the folder with squeezenet1_1.pth and squeeze.pth where weight "
                f"is above 0; got '' and weight {self.weight}"
            )
        return self


class Perceptual:
    """LPIPS of reconstructions.

    Attributes:
        weight: Of the mean distance.
        about: What it looks with, for the record: checksums and the resizing of images.
    """

    weight: float
    about: dict[str, str]

    def __init__(self, options: PerceptualOptions, image: ImageShape, device: torch.device) -> None:
        """Read the network.

        Raises:
            ParamsError: If its files are missing or others, or the images have two channels.
        """
        network = open_lpips(Path(options.weights), image, field="perceptual.weights")
        self._network = network.to(device)
        self.weight = options.weight
        self.about = {**network.checksums, "resize": resize_rule(image.height, image.width)}

    def distance(self, images: Images, reconstructions: Images) -> Float[Tensor, ""]:
        """Mean LPIPS of the pairs."""
        return self._network(images, reconstructions).mean()
