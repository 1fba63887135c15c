"""What the training of the first stage asks of reconstructions beside their likelihood.

    rec = distortion / D + perceptual.weight * LPIPS
    loss + perceptual.weight * LPIPS + adversary.weight * lambda * fooling

Both terms are options of the training and not of a model: whatever gives an expected image can be
asked to look right. With both weights 0 nothing is built, read or drawn, and the loss is untouched.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from stages.core.shapes import Images, ImageShape, Nats
from stages.tasks.adversary import Adversary, AdversaryOptions
from stages.tasks.perceptual import Perceptual, PerceptualOptions

__all__ = ["Appearance", "build_appearance"]


class Appearance:
    """The terms that look at reconstructions, where there are any."""

    def __init__(
        self, perceptual: Perceptual | None = None, adversary: Adversary | None = None
    ) -> None:
        self.perceptual, self.adversary = perceptual, adversary

    @property
    def about(self) -> dict[str, Any]:
        """What foreign files took part, for the record of the artifact."""
        return {"perceptual": self.perceptual.about} if self.perceptual else {}

    def loss(
        self, images: Images, reconstructions: Images, distortion: Nats, step: int
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """What is added to the loss in nats per dim, and figures; the discriminator learns here.

        Args:
            images: What is to be rebuilt.
            reconstructions: E[x given z], with its graph.
            distortion: -log p(x given z), with its graph.
            step: Steps done so far.
        """
        added, figures = self.judge(images, reconstructions)
        if self.adversary:
            rec = distortion.mean() / images[0].numel() + added
            fooling, seen = self.adversary.loss(images, reconstructions, rec, step)
            added, figures = added + fooling, figures | seen
        return added, figures

    def judge(
        self, images: Images, reconstructions: Images
    ) -> tuple[Float[Tensor, ""], dict[str, Tensor]]:
        """The part of `loss` that depends on these images only, for validation."""
        if not self.perceptual:
            return reconstructions.new_zeros(()), {}
        distance = self.perceptual.distance(images, reconstructions)
        return self.perceptual.weight * distance, {"lpips": distance}

    def state(self) -> dict[str, Any]:
        """What must survive a kill: the discriminator."""
        return {"adversary": self.adversary.state()} if self.adversary else {}

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        if self.adversary:
            self.adversary.load_state(state["adversary"])


def build_appearance(
    perceptual: PerceptualOptions,
    adversary: AdversaryOptions,
    image: ImageShape,
    *,
    seed: int,
    device: torch.device,
) -> Appearance:
    """The terms whose weight is not 0, on `device`.

    Raises:
        ParamsError: If files are missing or others, or the images do not suit a term.
    """
    return Appearance(
        Perceptual(perceptual, image, device) if perceptual.weight else None,
        Adversary(adversary, image, seed, device) if adversary.weight else None,
    )
