"""How probable a model with a posterior holds unseen images: importance-weighted likelihood.

    log p(x) >= L_K = E log (1/K sum over k of w_k),    w_k = p(x|z_k) p(z_k) / q(z_k|x)

with K draws z_k of q(z|x) (Burda et al. 2016, arXiv:1509.00519, Eq. 8). L_1 is the evidence lower
bound; L_K does not fall with K and comes to log p(x) where the weights are bounded. Figures are
costs, -L_K in nats per image: below them the truth lies.

p(z) is the prior the model was trained against, or the learned one of the second stage; then q is
the posterior as it is stored, and the bound is that of the two stages together. Any q gives a
bound; the nearer it is to p(z|x), the tighter.

A likelihood of binary images needs grey ones made binary. They are, once, at random, each image
from a stream of its own: the test set that published figures of dynamically binarised data are
taken on (Salakhutdinov & Murray 2008), up to the draw. Bounds on images made binary by another rule
are another quantity.
"""

import math
from collections.abc import Callable, Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from stages.autoencoders.base import Autoencoder
from stages.bottlenecks.base import LatentSpec
from stages.core.randomness import torch_stream
from stages.core.shapes import Images, ImageShape, Labels
from stages.likelihoods.base import Likelihood
from stages.metrics.base import Figure, Protocol
from stages.metrics.likelihood import own_units
from stages.nn.distributions import Posterior
from stages.priors.base import Prior

__all__ = ["ImportanceBound", "fixed_targets", "prior_gains", "two_stage_log_weights"]

Weigh = Callable[[Images, Labels | None, int, torch.Generator], Float[Tensor, "draws batch"]]
"""(images, labels, draws, generator) -> log w of each draw, as `Autoencoder.log_weights`."""

BOUNDS = {
    "iwae": "-log of the mean importance weight (IWAE)",
    "elbo": "-mean log importance weight (ELBO)",
}

# Weights of so many draws are summed, and a request to stop obeyed, at a time.
DRAWS_AT_A_TIME = 100


class ImportanceBound:
    """The bound of K draws, and that of one, averaged over images.

    Attributes:
        images: How many were seen.
    """

    def __init__(self, weigh: Weigh, draws: int) -> None:
        """Start with no image.

        Args:
            weigh: Gives log weights.
            draws: K.
        """
        self.weigh, self.draws, self.images = weigh, draws, 0
        self._costs: list[dict[str, Float[Tensor, " batch"]]] = []

    @torch.no_grad()
    def weighed(
        self,
        images: Images,
        labels: Labels | None,
        generator: torch.Generator,
        pause: Callable[[], None] = lambda: None,
    ) -> dict[str, Float[Tensor, " batch"]]:
        """Nats of every image by bound, `iwae` and `elbo`, float64; `take` counts them.

        Args:
            images: As the likelihood has to explain them.
            labels: Their classes, for what looks at them.
            generator: Stream of the draws, on the device of the images.
            pause: Called between portions of the draws; may raise to stop.
        """
        log_sum = torch.full((len(images),), -torch.inf, dtype=torch.float64)
        total = torch.zeros(len(images), dtype=torch.float64)
        for start in range(0, self.draws, DRAWS_AT_A_TIME):
            pause()
            count = min(DRAWS_AT_A_TIME, self.draws - start)
            weights = self.weigh(images, labels, count, generator).cpu().double()
            log_sum = torch.logaddexp(log_sum, weights.logsumexp(dim=0))
            total += weights.sum(dim=0)
        return {"iwae": math.log(self.draws) - log_sum, "elbo": -total / self.draws}

    def take(self, costs: Mapping[str, Float[Tensor, " batch"]]) -> None:
        """Count images that were weighed, in this process or an earlier one."""
        self._costs.append(dict(costs))
        self.images += len(costs["iwae"])

    @property
    def costs(self) -> dict[str, Float[Tensor, " images"]]:
        """Nats of every image by bound, `iwae` and `elbo`, float64."""
        return {bound: torch.cat([costs[bound] for costs in self._costs]) for bound in BOUNDS}

    def figures(
        self, prefix: str, image: ImageShape, discretized: bool, protocol: Protocol
    ) -> list[Figure]:
        """Both bounds in nats per image, and in bits per dim where these exist.

        Args:
            prefix: Of the figures' names: "" or what tells the prior.
            image: Shape of the images.
            discretized: Whether p(x|z) is a probability of 8-bit images.
            protocol: What all figures have in common.
        """
        how = protocol.also(draws=self.draws, bound="upper bound on -log p(x)")
        result, n = [], self.images
        for bound, costs in self.costs.items():
            mean, found = costs.mean().item(), {"standard_error_over_images": _error(costs)}
            told = how.also(of=BOUNDS[bound], found=found)
            name, unit = f"{prefix}{bound}_nats", "nats per image"
            result.append(Figure(name, mean, unit, "lower", n, told))
            if discretized:
                bits, more = mean / (image.dims * math.log(2)), told.also(dims=image.dims)
                name, unit = f"{prefix}{bound}_bits_per_dim", "bits per dim"
                result.append(Figure(name, bits, unit, "lower", n, more))
        return result


def prior_gains(own: ImportanceBound, learned: ImportanceBound, protocol: Protocol) -> list[Figure]:
    """What the learned prior gains on either bound: the prior hole it fills, in nats per image.

    Args:
        own: Under the first stage's own prior.
        learned: Under the second stage's, of the same images, with the same draws.
        protocol: What all figures have in common.
    """
    assert (own.draws, own.images) == (learned.draws, learned.images), "not the same draws"
    result = []
    for bound, costs in own.costs.items():
        gain = costs - learned.costs[bound]
        told = protocol.also(
            draws=own.draws,
            of=f"{BOUNDS[bound]}: own prior - learned prior, same draws",
            found={"standard_error_over_images": _error(gain)},
        )
        name, mean = f"{bound}_prior_gain_nats", gain.mean().item()
        result.append(Figure(name, mean, "nats per image", "higher", len(gain), told))
    return result


def _error(costs: Float[Tensor, " images"]) -> float | None:
    """Standard error of the mean over images; of one there is none."""
    return None if len(costs) < 2 else (costs.std() / len(costs) ** 0.5).item()


def two_stage_log_weights(autoencoder: Autoencoder, prior: Prior, spec: LatentSpec) -> Weigh:
    """Weights under the prior of the second stage; draws are of the posterior as it is stored.

    Args:
        autoencoder: The first stage.
        prior: The second.
        spec: What is stored, with its scale.
    """

    def weigh(
        images: Images, labels: Labels | None, draws: int, generator: torch.Generator
    ) -> Float[Tensor, "draws batch"]:
        posterior = autoencoder.encode(images, labels)
        assert isinstance(posterior, Posterior), "codes have no importance weights"
        classes = labels if prior.num_classes else None
        weights = []
        for _ in range(draws):
            latents = posterior.rsample(generator)
            log_prior = prior.log_prob(spec.scale * latents, classes)
            parameters = autoencoder.decode(latents, labels)
            likelihood = autoencoder.likelihood.log_prob(images, parameters)
            ratio = own_units(log_prior.cpu(), spec) - posterior.log_prob(latents).cpu()
            weights.append(likelihood.cpu() + ratio)
        return torch.stack(weights)

    return weigh


def fixed_targets(likelihood: Likelihood, images: Images, rows: list[int], seed: int) -> Images:
    """What the likelihood has to explain of each image, drawn once.

    Args:
        likelihood: Says what a target is.
        images: In [-1, 1], on the CPU.
        rows: Their numbers in the split: image i is drawn the same in whatever company.
        seed: Of the draws.
    """
    targets = [
        likelihood.target(image.unsqueeze(0), torch_stream(seed, "evaluate", "target", row))
        for image, row in zip(images, rows, strict=True)
    ]
    return torch.cat(targets)
