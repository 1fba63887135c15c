"""A mixture of Gaussians over all numbers of an image's latents, fitted afterwards and at once.

    p(z given y) = sum_k w_yk N(z; m_yk, C_yk)

What turns an autoencoder without a prior into a generator for next to nothing, and the baseline a
learned prior over continuous latents must beat (Ghosh et al. 2020, arXiv:1903.12436, section 4: ten
full covariances, fitted ex post). Full or diagonal covariances; one mixture for all images, or one
for each class, and then p(z) = sum_y p(y) p(z given y) with the classes' frequencies.

It learns without gradients: k-means, then passes of expectation maximisation over the training
latents (stages/nn/gaussian_components.py), piece by piece, since they may be larger than memory.
Libraries (scikit-learn's GaussianMixture, which the tests compare it with) want them all at once,
several times over. Posteriors are drawn from, the same draws at every pass, so that no pass lowers
the likelihood of what is fitted but by `covariance_floor`.

Temperature and truncation choose among components, `variance_temperature` multiplies standard
deviations, as in a mixture for each cell (stages/heads/mixture.py). There is no guidance: the
guided density of two mixtures is no mixture.
"""

import math
from collections.abc import Iterable
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.shapes import Labels, Nats
from stages.heads.base import HeadOptions, SamplerSettings
from stages.nn.codebook import kmeans
from stages.nn.gaussian_components import GaussianComponents
from stages.nn.inverse_cdf import index_from_uniform, normal_from_uniform, truncated
from stages.nn.kernels.nearest import nearest
from stages.nn.schedules import Step
from stages.priors.base import LatentsAndLabels, Passes, Prior, PriorOptions

__all__ = ["GaussianMixtureOptions", "GaussianMixturePrior"]

Latents = Float[Tensor, "batch channels grid_height grid_width"]


class GaussianMixtureOptions(PriorOptions):
    """How many, of which form, and how they are fitted."""

    kind: Literal["gaussian_mixture"]
    models: ClassVar[tuple[LatentKind, ...]] = ("continuous",)
    trainable: ClassVar[bool] = False
    has_head: ClassVar[bool] = False
    meaningless: ClassVar[tuple[str, ...]] = ("guidance",)  # there is no guided density
    components: int = Field(gt=0)
    """Gaussians of each mixture; 10 in Ghosh et al. 2020."""
    covariance: Literal["full", "diagonal"]
    """Full ones grow with the square of the latents' size: for vectors and small grids."""
    per_class: bool
    """Whether every class has a mixture of its own; without classes there is one."""
    covariance_floor: float = Field(gt=0)
    """Added to every variance, in units of the stored latents, whose variance is about 1."""
    kmeans_iterations: int = Field(ge=0)
    """Of the start."""
    draws: int = Field(gt=0)
    """Draws of every posterior that are fitted."""
    max_passes: int = Field(gt=0)
    """Passes of expectation maximisation, at most."""
    tolerance: float = Field(ge=0)
    """Stop when a pass gains fewer nats per image of the training split than this."""


class GaussianMixturePrior(Prior):
    """Mixtures over flattened latents; its parameters are buffers."""

    def __init__(
        self, options: GaussianMixtureOptions, head: HeadOptions, spec: LatentSpec, num_classes: int
    ) -> None:
        super().__init__(options, head, spec, num_classes)
        self.num_classes = num_classes if options.per_class else 0
        # One more token than the latents have: its first number chooses the component.
        self.noise_shape = (spec.tokens + 1, spec.channels)
        self.passes = Passes(options.max_passes, options.draws, options.tolerance)
        self.floor, self.kmeans_iterations = options.covariance_floor, options.kmeans_iterations
        self.groups, self.components = max(1, self.num_classes), options.components
        self.mixtures = GaussianComponents(
            self.groups, options.components, spec.numbers, full=options.covariance == "full"
        )
        self.log_frequencies: Float[Tensor, " groups"]
        self.register_buffer("log_frequencies", torch.zeros(self.groups) - math.log(self.groups))

    def log_prob(self, latents: Latents, labels: Labels | None) -> Nats:
        """log p(latents given labels) in nats per image, exact; None: over all classes."""
        vectors = latents.flatten(1).float()
        if labels is None or self.num_classes == 0:
            joint = [self.mixtures.joint(vectors, group) for group in range(self.groups)]
            return torch.cat(
                [part + log_p for part, log_p in zip(joint, self.log_frequencies, strict=True)], 1
            ).logsumexp(dim=1)
        nats = vectors.new_empty(len(vectors))
        for group, rows in _by_group(labels):
            nats[rows] = self.mixtures.joint(vectors[rows], group).logsumexp(dim=1)
        return nats

    def loss(
        self, latents: Latents, labels: Labels | None, step: Step | None = None
    ) -> Float[Tensor, ""]:
        """Mean nats per token; what the passes lower."""
        return -self.log_prob(latents, labels).mean() / self.spec.tokens

    @torch.no_grad()
    def start_from_data(
        self, latents: Latents, labels: Labels | None, generator: torch.Generator
    ) -> None:
        """Components around the centres of k-means, each with the covariance of its cluster."""
        vectors = latents.flatten(1)
        for group in range(self.groups):
            own = vectors if self.groups == 1 else vectors[labels == group]
            # A class that is rare enough to be missed starts as all of them together.
            own = own if len(own) else vectors
            centres, _ = kmeans(own, self.components, self.kmeans_iterations, generator)
            statistics = self.mixtures.statistics()
            nearest_centre = torch.nn.functional.one_hot(nearest(own, centres)[0], len(centres))
            statistics.add(own, nearest_centre.float())
            self.mixtures.update(group, statistics, self.floor)

    @torch.no_grad()
    def fit_pass(self, batches: Iterable[LatentsAndLabels]) -> float:
        """One pass of expectation maximisation; nats per image before it."""
        statistics = [self.mixtures.statistics() for _ in range(self.groups)]
        nats, count = 0.0, 0
        for latents, labels in batches:
            vectors = latents.flatten(1)
            one_group = torch.zeros(len(vectors), dtype=torch.int64, device=vectors.device)
            for group, rows in _by_group(one_group if self.groups == 1 else labels):
                joint = self.mixtures.joint(vectors[rows], group)
                statistics[group].add(vectors[rows], joint.softmax(dim=1))
                nats -= joint.logsumexp(dim=1).double().sum().item()
            count += len(vectors)
        seen = torch.stack([group.counts.sum() for group in statistics])
        # At least one image: the logarithm of a class that was never seen must be a number.
        self.log_frequencies.copy_((seen.clamp_min(1) / seen.clamp_min(1).sum()).log())
        for group, counted in enumerate(seen):
            if counted > 0:
                self.mixtures.update(group, statistics[group], self.floor)
        return nats / max(1, count)

    @torch.no_grad()
    def sample(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        settings: SamplerSettings,
    ) -> Latents:
        """A component by one uniform, normal numbers by the others.

        Raises:
            ParamsError: If guidance is asked for.
        """
        self.check_settings(settings)
        # One row of logits over the components of all groups; a class rules the others out.
        logits = (self.mixtures.log_weights + self.log_frequencies.unsqueeze(1)).expand(
            len(uniforms), -1, -1
        )
        if labels is not None and self.num_classes:
            others = torch.arange(self.groups, device=labels.device) != labels.unsqueeze(1)
            logits = logits.masked_fill(others.unsqueeze(2), -torch.inf)
        logits = logits.flatten(1) / settings.temperature
        kept = truncated(logits, settings.top_k, settings.top_p, settings.min_p)
        group, chosen = _divmod(index_from_uniform(kept, uniforms[:, 0, 0]), self.components)
        noise = normal_from_uniform(uniforms[:, 1:]).mT.flatten(1) * settings.variance_temperature
        vectors = self.mixtures.from_normal(chosen, noise, group)
        return vectors.unflatten(
            1, (self.spec.channels, self.spec.grid_height, self.spec.grid_width)
        )


def _divmod(index: Int[Tensor, " batch"], size: int) -> tuple[Tensor, Tensor]:
    return index // size, index % size


def _by_group(labels: Int[Tensor, " batch"]) -> list[tuple[int, Tensor]]:
    """Each group that occurs, and its rows."""
    return [(int(group), (labels == group).nonzero().flatten()) for group in labels.unique()]
