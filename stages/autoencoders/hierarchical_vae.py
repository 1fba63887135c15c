"""A hierarchy of latents, coarse to fine, each group drawn given those before it.

    p(x, z) = p(x given z) p(z_1) p(z_2 given z_1) ... p(z_L given z_<L)
    -log p(x) <= E_q[-log p(x given z) + sum over l of KL_l]
    KL_l = KL(q(z_l given z_<l, x) || p(z_l given z_<l))

(Vahdat & Kautz 2020, NVAE, arXiv:2007.03898, Eq. 1; Child 2021, very deep VAE, arXiv:2011.10650;
networks in stages/nn/top_down.py). It stands between a backbone's encoder and decoder: their
features are its finest grid. Every KL is a closed form at a draw of the latents before it.

The model's prior is part of the model, and learned with it. What is stored is therefore the latents
in whitened coordinates,

    e_l = (z_l - mu_p(z_<l)) / sigma_p(z_<l),    N(0, I) under the prior

all groups end to end in one cell: a `standard_normal` prior over them samples ancestrally, a
temperature widens or narrows every p(z_l given z_<l), and a learned one may mend what the model's
own leaves undone.

Differs: the posterior told for storage is of the e_l given the means of those before them, so its
draws are a mean-field version of the model's q; the exact bound is that of a training pass and of
`log_weights`, and stands among the figures of `evaluate` as `elbo_nats`. It looks at no classes.
"""

import math
from itertools import pairwise
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor

from stages.autoencoders.base import Autoencoder, AutoencoderOptions, Parts, Reconstructed
from stages.bottlenecks.base import BottleneckOptions, LatentSpec
from stages.core.errors import ParamsError
from stages.core.shapes import FeatureShape, Images, Labels, Nats
from stages.likelihoods.base import Parameters
from stages.nn.distributions import DiagonalGaussian, LatentNumbers
from stages.nn.schedules import Step
from stages.nn.top_down import BottomUp, Descent, Grid, PosteriorForm, TopDown

__all__ = ["HierarchicalVAE", "HierarchicalVAEOptions"]

Count = Annotated[int, Field(ge=1)]

# Importance weights take thousands of draws of an image: so many rows fill an operation, and their
# feature maps stay near a CPU's cache.
_DRAWS_AT_ONCE = 512


class HierarchicalVAEOptions(AutoencoderOptions):
    """Parameters of the hierarchy; its bottleneck says how many latents a cell has."""

    kind: Literal["hierarchical_vae"]
    grids: tuple[Count, ...] = Field(min_length=1)
    """Rows of each grid, coarse to fine; the last are those of the backbone's features, and
    columns are in proportion. Every step may have any factor."""
    groups: tuple[Count, ...]
    """Groups of latents on each grid: each is drawn given all before it."""
    widths: tuple[Annotated[int, Field(ge=2)], ...]
    """Maps of each grid: wide ones are cheap where the grid is coarse."""
    blocks: int = Field(ge=0)
    """Residual blocks on each grid on the way up."""
    posterior: PosteriorForm
    """`residual`: posteriors are told by their distance from the prior; `absolute`: by themselves.
    """

    @model_validator(mode="after")
    def _grids_are_a_ladder(self) -> "HierarchicalVAEOptions":
        if any(fine <= coarse for coarse, fine in pairwise(self.grids)):
            raise ValueError(f"grids must rise from coarse to fine; got {list(self.grids)}")
        for name in ("groups", "widths"):
            if len(getattr(self, name)) != len(self.grids):
                raise ValueError(
                    f"{name} must have one number per grid: {len(self.grids)} for grids "
                    f"{list(self.grids)}; got {list(getattr(self, name))}"
                )
        return self

    def ladder(self, features: FeatureShape) -> list[Grid]:
        """The grids, coarse to fine.

        Raises:
            ParamsError: If the finest is not that of the features.
        """
        if self.grids[-1] != features.grid_height:
            raise ParamsError(
                f"autoencoder.grids: the last must be the {features.grid_height} rows of the "
                f"backbone's features; got {list(self.grids)}; change it, or the number of "
                "backbone.widths"
            )
        shape = features.grid_width / features.grid_height
        return [
            Grid(rows, max(1, round(rows * shape)), width, groups)
            for rows, width, groups in zip(self.grids, self.widths, self.groups, strict=True)
        ]

    def latent_spec(
        self, bottleneck: BottleneckOptions, features: FeatureShape, num_classes: int
    ) -> LatentSpec:
        """All latents of all groups, end to end in one cell.

        Raises:
            ParamsError: If the bottleneck is not a Gaussian on the grid.
        """
        sizes = _sizes(self.ladder(features), _channels(bottleneck))
        return LatentSpec("continuous", 1, 1, channels=sum(sizes.values()))


def _channels(bottleneck: BottleneckOptions) -> int:
    values = bottleneck.model_dump()
    if (bottleneck.kind, values.get("layout")) != ("gaussian", "spatial"):
        raise ParamsError(
            "autoencoder.kind: 'hierarchical_vae' needs bottleneck.kind: gaussian with layout: "
            "spatial, whose channels are the latents per cell of each group; got "
            f"{bottleneck.kind} with layout {values.get('layout')}"
        )
    return values["channels"]


def _sizes(ladder: list[Grid], channels: int) -> dict[str, int]:
    """Name of every group of latents -> how many there are, coarse to fine."""
    grids = [grid for grid in ladder for _ in range(grid.groups)]
    return {
        f"level_{index:02d}_{grid.rows}x{grid.columns}": channels * grid.rows * grid.columns
        for index, grid in enumerate(grids)
    }


class HierarchicalVAE(Autoencoder):
    """A backbone around a ladder of latents.

    Attributes:
        kl_groups: The groups of latents: level_00_1x1, ..., coarse to fine.
    """

    stores_mean_field = True

    def __init__(self, options: HierarchicalVAEOptions, parts: Parts) -> None:
        super().__init__(options, parts)
        ladder, channels = options.ladder(parts.features), _channels(parts.bottleneck)
        self.backbone = parts.backbone
        self.likelihood = parts.likelihood
        self.objective = parts.objective
        self.bottom_up = BottomUp(parts.features.width, ladder, options.blocks)
        self.top_down = TopDown(ladder, channels, options.posterior, parts.features.width)
        self.kl_groups = _sizes(ladder, channels)
        self._shapes = [(g.rows, g.columns) for g in ladder for _ in range(g.groups)]
        self._channels = channels
        self._spec = options.latent_spec(parts.bottleneck, parts.features, parts.num_classes)

    @property
    def spec(self) -> LatentSpec:
        """All latents in one cell."""
        return self._spec

    def forward(
        self,
        images: Images,
        labels: Labels | None = None,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Reconstructed:
        """One pass with losses; targets and latents are drawn from `generator`."""
        target = self.likelihood.target(images, generator)
        descent = self._draw(self._evidence(target), generator)
        parameters = self.backbone.decoder(descent.features)
        distortion = -self.likelihood.log_prob(target, parameters)
        kl = _flat([posterior.kl_per_number() for posterior in descent.posteriors]).flatten(1)
        nats = distortion.mean() + self.objective.cost(kl, step)
        return Reconstructed(
            loss=nats / images[0].numel(),
            distortion=distortion,
            kl=kl,
            auxiliary=nats.new_zeros(()),
            reconstructions=self.likelihood.mean(parameters),
        )

    def encode(self, images: Images, labels: Labels | None = None) -> DiagonalGaussian:
        """The posterior of the e_l along the path of posterior means; deterministic."""
        target = self.likelihood.target(images, None)
        descent = self.top_down.infer(self._evidence(target), lambda posterior: posterior.mean)
        return DiagonalGaussian(
            _flat([posterior.mean for posterior in descent.posteriors]),
            _flat([posterior.log_variance for posterior in descent.posteriors]),
        )

    def decode(self, latents: Tensor, labels: Labels | None = None) -> Parameters:
        """Parameters of p(x given z), for latents in whitened coordinates."""
        return self.backbone.decoder(self.top_down.generate(self._by_level(latents)))

    def log_weights(
        self, images: Images, labels: Labels | None, draws: int, generator: torch.Generator
    ) -> Float[Tensor, "draws batch"]:
        """Weights of draws of the model's own q; images are encoded once, draws go in batches."""
        evidence = self._evidence(images)
        weights: list[Tensor] = []
        while len(weights) < draws:
            count = min(draws - len(weights), max(1, _DRAWS_AT_ONCE // len(images)))
            repeated = [part.repeat(count, 1, 1, 1) for part in evidence]
            weights += self._log_weights(images.repeat(count, 1, 1, 1), repeated, generator).view(
                count, -1
            )
        return torch.stack(weights)

    def _log_weights(
        self, images: Images, evidence: list[Tensor], generator: torch.Generator
    ) -> Nats:
        descent = self._draw(evidence, generator)
        weights = self.likelihood.log_prob(images, self.backbone.decoder(descent.features))
        for posterior, latents in zip(descent.posteriors, descent.latents, strict=True):
            ratio = posterior.standard_log_prob(latents) - posterior.log_prob(latents)
            weights = weights + ratio
        return weights

    @torch.no_grad()
    def resample_level(
        self, latents: LatentNumbers, level: int, generator: torch.Generator
    ) -> LatentNumbers:
        """The same latents with one group drawn anew from its prior.

        Those below it keep their e_l: what they add to what they find, not what they are.

        Args:
            latents: As `encode` and `decode` have them, in whitened coordinates.
            level: Index into `kl_groups`.
            generator: Where the draw comes from.
        """
        parts = list(latents.split(list(self.kl_groups.values()), dim=1))
        drawn = torch.randn(parts[level].shape, generator=generator, device=generator.device)
        parts[level] = drawn.to(latents)
        return torch.cat(parts, dim=1)

    def _evidence(self, target: Images) -> list[Tensor]:
        return self.bottom_up(self.backbone.encoder(target))

    def _draw(self, evidence: list[Tensor], generator: torch.Generator | None) -> Descent:
        return self.top_down.infer(evidence, lambda posterior: posterior.rsample(generator))

    def _by_level(self, latents: LatentNumbers) -> list[Tensor]:
        parts = latents.split([self._channels * math.prod(shape) for shape in self._shapes], dim=1)
        return [
            part.reshape(len(part), self._channels, *shape)
            for part, shape in zip(parts, self._shapes, strict=True)
        ]


def _flat(levels: list[Tensor]) -> LatentNumbers:
    """(batch, all numbers, 1, 1), coarse to fine."""
    return torch.cat([level.flatten(1) for level in levels], dim=1)[:, :, None, None]
