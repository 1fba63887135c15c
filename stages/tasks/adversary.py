"""An adversary of the first stage: a discriminator tells images from reconstructions by patches.

    discriminator, hinge            1/2 mean relu(1 - D(x)) + 1/2 mean relu(1 + D(y))
                   non_saturating   1/2 mean softplus(-D(x)) + 1/2 mean softplus(D(y))
    autoencoder,   hinge            fooling = -mean D(y)
                   non_saturating   fooling = mean softplus(-D(y))

with y = E[x given z] (Lim & Ye 2017, arXiv:1705.02894; Goodfellow et al. 2014, arXiv:1406.2661).
The autoencoder's loss gains weight * lambda * fooling, where `adaptive` takes

    lambda = |grad rec| / (|grad fooling| + 1e-6),   at most 1e4,   gradients of the last weights

(VQGAN, Esser et al. 2021, arXiv:2012.09841, Eq. 7): at `weight` 1 the adversary pulls at the last
layer as hard as the reconstruction does, whatever its logits. rec is the distortion in nats per dim
and the perceptual term. Before `start_step` there is no adversary: it would judge a blur.

LeCam (Tseng et al. 2021, arXiv:2104.03310, Eq. 4) keeps a discriminator of few images from growing
certain: lecam_weight * [mean (D(x) - r_y)^2 + mean (D(y) - r_x)^2], with running means r of the
logits of images and of reconstructions.

Differs: the bound 1e4 on lambda is the authors' code's. The discriminator takes its step first, on
the images of the same step. The last weights are found by looking, in the graph behind the
reconstructions, for the nearest tensor of two or more axes: every autoencoder has them.
"""

from collections import deque
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, field_validator
from torch import Tensor

from stages.core.errors import ParamsError
from stages.core.randomness import seed_everything
from stages.core.sections import Section
from stages.core.shapes import Images, ImageShape
from stages.nn.discriminator import PatchDiscriminator

__all__ = ["Adversary", "AdversaryOptions", "adaptive_weight", "last_weights"]

Scalar = Float[Tensor, ""]

# Of Eq. 7, and the authors' bound.
_DELTA = 1e-6
_LARGEST = 1e4


class AdversaryOptions(Section):
    """The `adversary` section."""

    weight: float = Field(ge=0)
    """Of the adversary's term beside nats per dim; 0: no adversary."""
    start_step: int = Field(ge=0)
    """Steps before there is an adversary."""
    adaptive: bool
    """Whether the term is scaled to pull as hard as the reconstruction; not of compiled models."""
    loss: Literal["hinge", "non_saturating"]
    """What discriminator and autoencoder minimise."""
    width: int = Field(gt=0, multiple_of=8)
    """Maps of the discriminator's first layer."""
    layers: int = Field(ge=1)
    """Halvings in the discriminator: patches of 16, 34, 70 pixels for 1, 2, 3."""
    learning_rate: float = Field(gt=0)
    """Of the discriminator's Adam; constant."""
    betas: tuple[float, float]
    """Moment decays of the discriminator's Adam."""
    lecam_weight: float = Field(ge=0)
    """Of the LeCam regularisation; 0: none. Helps where images are few."""
    lecam_decay: float = Field(ge=0, lt=1)
    """Of the running means of logits, per step."""

    @field_validator("betas")
    @classmethod
    def _check(cls, betas: tuple[float, float]) -> tuple[float, float]:
        if not all(0 <= beta < 1 for beta in betas):
            raise ValueError("betas must lie in [0, 1)")
        return betas


class Adversary:
    """A discriminator that learns beside the autoencoder, and what the autoencoder owes it.

    Attributes:
        network: The discriminator; its weights take gradients only while it learns.
        usual_logits: Running mean logits of images and of reconstructions.
    """

    usual_logits: Float[Tensor, "2"]

    def __init__(
        self, options: AdversaryOptions, image: ImageShape, seed: int, device: torch.device
    ) -> None:
        """Build it with weights from the stream (seed, "discriminator").

        Raises:
            ParamsError: If the images are too small for so many layers.
        """
        self.options = options
        seed_everything(seed, "discriminator")
        self.network = PatchDiscriminator(image, options.width, options.layers).to(device)
        self.network.requires_grad_(False)
        self.optimizer = torch.optim.Adam(
            self.network.parameters(), lr=options.learning_rate, betas=options.betas
        )
        self.usual_logits = torch.zeros(2, device=device)

    def loss(
        self, images: Images, reconstructions: Images, rec: Scalar, step: int
    ) -> tuple[Scalar, dict[str, Tensor]]:
        """Let the discriminator learn from a batch, then charge the autoencoder.

        Args:
            images: What is to be rebuilt.
            reconstructions: With the graph that leads to the autoencoder's weights.
            rec: The reconstruction loss that `adaptive` compares with.
            step: Steps done so far.

        Returns:
            The term of the autoencoder's loss, and figures.
        """
        if step < self.options.start_step:
            return rec.new_zeros(()), {}
        figures = self._learn(images, reconstructions.detach())
        fooling = self._fooling(self.network(reconstructions).float())
        weight = torch.full_like(fooling, self.options.weight)
        if self.options.adaptive:
            weight = weight * adaptive_weight(rec, fooling, last_weights(reconstructions))
        return weight * fooling, {"fooling": fooling, "adversary_weight": weight, **figures}

    def state(self) -> dict[str, Any]:
        """All that changes: weights, moments, running means."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "usual_logits": self.usual_logits,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Take back what `state` gave."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.usual_logits.copy_(state["usual_logits"])

    def _learn(self, images: Images, reconstructions: Images) -> dict[str, Tensor]:
        """One step of the discriminator."""
        self.network.requires_grad_(True)
        real, rebuilt = self.network(images).float(), self.network(reconstructions).float()
        # Gradients and the step are float32 also where the forward pass was not.
        with torch.autocast(images.device.type, enabled=False):
            loss = self._telling_apart(real, rebuilt)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
        self.network.requires_grad_(False)
        logits = torch.stack([real.mean(), rebuilt.mean()]).detach()
        self.usual_logits.lerp_(logits, 1 - self.options.lecam_decay)
        return {"discriminator": loss, "logits_real": logits[0], "logits_rebuilt": logits[1]}

    def _telling_apart(self, real: Tensor, rebuilt: Tensor) -> Scalar:
        if self.options.loss == "hinge":
            loss = 0.5 * (F.relu(1 - real).mean() + F.relu(1 + rebuilt).mean())
        else:
            loss = 0.5 * (F.softplus(-real).mean() + F.softplus(rebuilt).mean())
        if self.options.lecam_weight:
            usual_real, usual_rebuilt = self.usual_logits
            certainty = (real - usual_rebuilt).square().mean()
            certainty = certainty + (rebuilt - usual_real).square().mean()
            loss = loss + self.options.lecam_weight * certainty
        return loss

    def _fooling(self, rebuilt: Tensor) -> Scalar:
        return -rebuilt.mean() if self.options.loss == "hinge" else F.softplus(-rebuilt).mean()


def adaptive_weight(rec: Scalar, fooling: Scalar, weights: Tensor) -> Scalar:
    """Eq. 7 of Esser et al. 2021: how much harder `rec` pulls at these weights than `fooling`."""
    with torch.autocast(weights.device.type, enabled=False):
        (of_rec,) = torch.autograd.grad(rec, weights, retain_graph=True)
        (of_fooling,) = torch.autograd.grad(fooling, weights, retain_graph=True)
        ratio = of_rec.norm() / (of_fooling.norm() + _DELTA)
    return ratio.clamp(0, _LARGEST).detach()


def last_weights(output: Tensor) -> Tensor:
    """The parameter of two or more axes that is fewest operations behind `output`.

    Raises:
        ParamsError: If the model is compiled: its graph is one opaque operation.
    """
    waiting, met = deque([output.grad_fn]), {output.grad_fn}
    while waiting:
        node = waiting.popleft()
        assert node is not None, "reconstructions depend on weights"
        if "Compiled" in node.name():
            raise ParamsError(
                "adversary.adaptive: the adaptive weight looks into the graph of the model; set "
                "train_autoencoder.compile: false or adversary.adaptive: false"
            )
        variable = getattr(node, "variable", None)
        if variable is not None and variable.ndim >= 2:
            return variable
        for behind, _ in node.next_functions:
            if behind is not None and behind not in met:
                met.add(behind)
                waiting.append(behind)
    raise AssertionError("reconstructions depend on weights")
