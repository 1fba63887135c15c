"""Two grids of codes: a coarse one for what the image shows, a fine one for the rest.

    features b = E(x)                                    on the fine grid
    coarse vectors q_c = quantize(E_c(b))                grid halved `coarse_levels` times
    u = D_c(q_c)                                         back on the fine grid
    fine vectors   q_f = quantize(J(b, u))               given what the coarse codes say already
    p(x given c, f) = D(J'(q_f, u))                      the decoder sees both

VQ-VAE-2 (Razavi et al. 2019, arXiv:1906.00446, Algorithm 1). J and J' put maps side by side and mix
them by a 1x1 convolution. Both levels have a bottleneck of the same options, each with a codebook
of its own; its losses are summed. Codes are stored in one row, the coarse grid, then the fine one.

The fine level alone could rebuild the image, and being nearer to both ends it learns to, first;
coarse codes then are used and say little. So training hides q_f from the decoder in some images
(zeros in its place), as nested dropout hides the later ones of ordered units (Rippel et al. 2014,
arXiv:1402.0915): what can be said coarsely has to be.

Differs: that; E_c, D_c of the residual blocks used everywhere else here; the decoder and the fine
level share u, where the paper upsamples twice; any bottleneck will do that stores one code per
cell.
"""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from stages.autoencoders.base import Autoencoder, AutoencoderOptions, Parts, Reconstructed
from stages.bottlenecks.base import Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.errors import ParamsError
from stages.core.shapes import Codes, Features, FeatureShape, Images, Labels
from stages.likelihoods.base import Parameters
from stages.nn.code_grids import grids_of_row, row_of_grids
from stages.nn.codebook import code_counts, code_usage, perplexity
from stages.nn.convolution import AFTER_SILU, LINEAR, convolution
from stages.nn.residual import residual_blocks
from stages.nn.schedules import Step
from stages.nn.upsampling import upsampling

__all__ = ["HierarchicalVQ", "HierarchicalVQOptions"]


class HierarchicalVQOptions(AutoencoderOptions):
    """Parameters of the coarse level."""

    kind: Literal["hierarchical_vq"]
    coarse_levels: int = Field(ge=1)
    """How often the coarse grid halves the fine one."""
    width: int = Field(ge=2)
    """Maps of the coarse level."""
    blocks: int = Field(ge=0)
    """Residual blocks after every halving, and again before every doubling."""
    fine_dropout: float = Field(ge=0, lt=1)
    """Share of the images of a training step that are rebuilt from coarse codes alone; 0: none, as
    in the paper. They count in the distortion, and so in a learned or optimal sigma."""

    def coarse_shape(self, features: FeatureShape) -> FeatureShape:
        """Shape of the features that become coarse codes.

        Raises:
            ParamsError: If the fine grid cannot be halved so often.
        """
        factor = 2**self.coarse_levels
        if features.grid_height % factor or features.grid_width % factor:
            raise ParamsError(
                f"autoencoder.coarse_levels: {self.coarse_levels} halvings need rows and columns "
                f"of the backbone's grid to be multiples of {factor}; they are "
                f"{features.grid_height}x{features.grid_width}; give fewer coarse_levels, or a "
                "backbone with fewer levels"
            )
        return FeatureShape(
            self.width, features.grid_height // factor, features.grid_width // factor
        )

    def latent_spec(
        self, bottleneck: BottleneckOptions, features: FeatureShape, num_classes: int
    ) -> LatentSpec:
        """Coarse codes, then fine ones, in one row.

        Raises:
            ParamsError: If the bottleneck does not store one code per cell, or the grid cannot be
                halved.
        """
        grids = []
        num_codes = 0
        for shape in (self.coarse_shape(features), features):
            spec, grid = bottleneck.latent_spec(shape), (shape.grid_height, shape.grid_width)
            if spec.kind != "codes" or spec.parts or (spec.grid_height, spec.grid_width) != grid:
                raise ParamsError(
                    "bottleneck.kind: autoencoder.kind 'hierarchical_vq' needs a bottleneck that "
                    f"stores one code per cell of each of its grids; {bottleneck.kind!r} stores "
                    f"{'several' if spec.parts else spec.kind}; choose ema_vq, say"
                )
            grids.append(grid)
            num_codes = spec.num_codes
        tokens = sum(rows * columns for rows, columns in grids)
        return LatentSpec("codes", 1, tokens, num_codes, parts=tuple(grids))


class HierarchicalVQ(Autoencoder):
    """A backbone with a coarse level inside it."""

    def __init__(self, options: HierarchicalVQOptions, parts: Parts) -> None:
        super().__init__(options, parts)
        self.fine_dropout = options.fine_dropout
        self._spec = options.latent_spec(parts.bottleneck, parts.features, parts.num_classes)
        fine, coarse = parts.features, options.coarse_shape(parts.features)
        self.codebook_parts = self._spec.parts
        self.backbone = parts.backbone
        self.coarse_encoder = _coarse_encoder(options, fine.width)
        self.coarse_bottleneck = parts.make_bottleneck(coarse)
        self.coarse_decoder = _coarse_decoder(options, fine.width)
        self.join_features = convolution(2 * fine.width, fine.width, 1, gain=LINEAR)
        self.fine_bottleneck = parts.make_bottleneck(fine)
        self.join_vectors = convolution(2 * fine.width, fine.width, 1, gain=LINEAR)
        self.likelihood = parts.likelihood
        self.objective = parts.objective
        self.kl_groups = {
            name: rows * columns
            for name, (rows, columns) in zip(("coarse", "fine"), self._spec.parts, strict=True)
        }

    @property
    def spec(self) -> LatentSpec:
        """Both grids in one row."""
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
        features = self.backbone.encoder(target)
        coarse = self.coarse_bottleneck(self.coarse_encoder(features), generator, step)
        said = self.coarse_decoder(coarse.features)
        joined = self.join_features(torch.cat([features, said], dim=1))
        fine = self.fine_bottleneck(joined, generator, step)
        parameters = self._decode(said, self._hidden_from_some(fine.features, generator))
        distortion = -self.likelihood.log_prob(target, parameters)
        kl = torch.cat([_per_dimension(passed) for passed in (coarse, fine)], dim=1)
        # A coarse draw moves the fine KL, and through it what the objective asks for.
        total = distortion + (kl * self.objective.price(kl, step)).sum(dim=1)
        surrogate = self.coarse_bottleneck.surrogate(coarse, total)
        surrogate = surrogate + self.fine_bottleneck.surrogate(fine, total)
        nats = distortion.mean() + self.objective.cost(kl, step) + surrogate
        auxiliary = coarse.auxiliary + fine.auxiliary
        assert coarse.codes is not None and fine.codes is not None
        return Reconstructed(
            loss=nats / images[0].numel() + auxiliary,
            distortion=distortion,
            kl=kl,
            auxiliary=auxiliary,
            reconstructions=self.likelihood.mean(parameters),
            codes=row_of_grids([coarse.codes, fine.codes]),
            statistics=self._statistics("coarse", coarse) | self._statistics("fine", fine),
        )

    def encode(self, images: Images, labels: Labels | None = None) -> Codes:
        """Coarse and fine codes in one row; deterministic."""
        features = self.backbone.encoder(self.likelihood.target(images, None))
        coarse = self.coarse_bottleneck.encode(self.coarse_encoder(features))
        said = self.coarse_decoder(self.coarse_bottleneck.decode(coarse))
        joined = self.join_features(torch.cat([features, said], dim=1))
        return row_of_grids([coarse, self.fine_bottleneck.encode(joined)])

    def decode(self, latents: Codes, labels: Labels | None = None) -> Parameters:
        """Parameters of p(x given both grids).

        Grids of different images may stand in one row: the picture then shows what each carries.
        """
        coarse, fine = grids_of_row(latents, self._spec.parts)
        said = self.coarse_decoder(self.coarse_bottleneck.decode(coarse))
        return self._decode(said, self.fine_bottleneck.decode(fine))

    @torch.no_grad()
    def start_from_data(
        self, images: Images, labels: Labels | None, generator: torch.Generator
    ) -> None:
        """Start the coarse codebook, then the fine one given what the coarse codes now say."""
        features = self.backbone.encoder(self.likelihood.target(images, generator))
        inner = self.coarse_encoder(features)
        self.coarse_bottleneck.start_from_data(inner, generator)
        codes = self.coarse_bottleneck.encode(inner)
        said = self.coarse_decoder(self.coarse_bottleneck.decode(codes))
        joined = self.join_features(torch.cat([features, said], dim=1))
        self.fine_bottleneck.start_from_data(joined, generator)

    @torch.no_grad()
    def after_step(self, generator: torch.Generator) -> None:
        """Let both bottlenecks mend themselves; the second goes on in the stream of the first."""
        self.coarse_bottleneck.after_step(generator)
        self.fine_bottleneck.after_step(generator)

    def resample_level(self, latents: Codes, level: int, generator: torch.Generator) -> Codes:
        """Every image with one level's codes of another of them, to show what that level holds.

        Args:
            latents: Of two images or more.
            level: 0: coarse; 1: fine.
            generator: Says whose codes each gets.
        """
        grids = grids_of_row(latents, self._spec.parts)
        count = len(latents)
        shift = torch.randint(1, count, (), generator=generator, device=generator.device)
        others = (torch.arange(count, device=latents.device) + shift.to(latents.device)) % count
        grids[level] = grids[level][others]
        return row_of_grids(grids)

    def _hidden_from_some(self, fine: Features, generator: torch.Generator | None) -> Features:
        """In training, zeros in the place of some images' fine vectors."""
        if not self.training or self.fine_dropout == 0:
            return fine
        draws = torch.rand((len(fine), 1, 1, 1), generator=generator, device=fine.device)
        return fine * (draws >= self.fine_dropout)

    def _decode(self, said: Features, fine: Features) -> Parameters:
        return self.backbone.decoder(self.join_vectors(torch.cat([fine, said], dim=1)))

    def _statistics(self, level: str, passed: Bottlenecked) -> dict[str, Tensor]:
        """The bottleneck's own, and use of the codebook by this batch where it does not tell."""
        assert passed.codes is not None
        counts = code_counts(passed.codes, self._spec.num_codes)
        figures = {"code_usage": code_usage(counts), "code_perplexity": perplexity(counts)}
        return {f"{level}_{name}": value for name, value in (figures | passed.statistics).items()}


def _coarse_encoder(options: HierarchicalVQOptions, in_width: int) -> nn.Module:
    layers: list[nn.Module] = []
    for level in range(options.coarse_levels):
        before = options.width if level else in_width
        layers += [nn.SiLU(), convolution(before, options.width, 4, stride=2, gain=AFTER_SILU)]
        layers += residual_blocks(options.width, options.blocks)
    return nn.Sequential(*layers)


def _coarse_decoder(options: HierarchicalVQOptions, out_width: int) -> nn.Module:
    layers: list[nn.Module] = []
    for level in reversed(range(options.coarse_levels)):
        after = options.width if level else out_width
        layers += residual_blocks(options.width, options.blocks)
        layers += [nn.SiLU(), upsampling("nearest", options.width, after)]
    return nn.Sequential(*layers)


def _per_dimension(passed: Bottlenecked) -> Float[Tensor, "batch latent_dims"]:
    if passed.kl is None:
        return passed.features.new_zeros(len(passed.features), 0)
    return passed.kl.flatten(1)
