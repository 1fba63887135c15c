"""Residual quantization: several codes per cell, each for what those before it left over.

    r_0 = z,   code_l = nearest entry e_l to r_(l-1),   r_l = r_(l-1) - e_l,   z ~ e_1 + ... + e_L

(Juang & Gray 1982; Zeghidour et al. 2021, SoundStream, arXiv:2107.03312; Lee et al. 2022, RQ-VAE,
arXiv:2203.01941, section 3.1.) L codes of K entries tell K^L vectors apart with at most L codebooks
of K entries. Entries follow by moving averages (`stages.nn.ema_codebook`); every partial sum is
held near the vector (Lee et al. 2022, Eq. 9):

    auxiliary = commitment_weight * sum over l of mean (z - sg[e_1 + ... + e_l])^2

so that the sum of any first codes is a picture already, which the later ones make finer. The
decoder's gradient passes from the whole sum to z. For the prior the grids stand end to end, all
first codes before all second ones: it draws a picture and then refines it.

Differs: k-means start, level by level on what is left, and revival on residuals of the level; a
shared codebook starts in `depth` equal parts, one for the residuals of each level, as those of one
level alone would leave the others nothing of their size. Vectors are projected to `dim` numbers
first. The gradient may pass by rotation.
"""

from typing import Literal, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from stages.bottlenecks.base import Bottleneck, Bottlenecked, BottleneckOptions, LatentSpec
from stages.core.shapes import Codes, Features, FeatureShape
from stages.nn.code_gradient import replaced
from stages.nn.code_grids import grids_of_row, row_of_grids
from stages.nn.codebook import flat_vectors, nearest_codes, perplexity, vectors_of
from stages.nn.codebook_options import CodebookOptions
from stages.nn.ema_codebook import EMACodebook
from stages.nn.kernels.nearest import nearest
from stages.nn.projections import features_from_latents, latents_from_features
from stages.nn.schedules import Step

__all__ = ["ResidualVQOptions", "ResidualVectorQuantizer"]

Grid = Float[Tensor, "batch dim grid_height grid_width"]
Row = Int[Tensor, "batch 1 tokens"]


class ResidualVQOptions(CodebookOptions, BottleneckOptions):
    """Parameters of residual quantization."""

    latents = "codes"

    kind: Literal["residual_vq"]
    depth: int = Field(ge=1)
    """Codes per cell, one for the residual of each level."""
    shared: bool
    """Whether all levels look into one codebook (true) or each into its own of `num_codes`."""

    @model_validator(mode="after")
    def _a_shared_codebook_has_a_part_for_each_level(self) -> "ResidualVQOptions":
        if self.shared and self.num_codes < self.depth:
            raise ValueError(
                f"num_codes must be at least depth ({self.depth}) where the codebook is shared; "
                f"got {self.num_codes}; give more codes, less depth, or shared: false"
            )
        return self

    def latent_spec(self, features: FeatureShape) -> LatentSpec:
        """One row: the grid of first codes, then that of second codes, and so on."""
        grid = (features.grid_height, features.grid_width)
        tokens = self.depth * features.grid_height * features.grid_width
        return LatentSpec("codes", 1, tokens, self.num_codes, parts=(grid,) * self.depth)


class _Level(NamedTuple):
    """What one level of the stack saw and chose."""

    residual: Grid
    codes: Codes
    distances: Float[Tensor, " vectors"]


class ResidualVectorQuantizer(Bottleneck):
    """A stack of nearest entries whose sum stands for the vector.

    Attributes:
        codebooks: One per level, or one for all.
    """

    def __init__(self, options: ResidualVQOptions, features: FeatureShape) -> None:
        super().__init__(options, features)
        self.options = options
        self.spec = options.latent_spec(features)
        self.codebook_parts = () if options.shared else self.spec.parts
        self.project_in = latents_from_features("spatial", features, options.dim)
        self.project_out = features_from_latents("spatial", features, options.dim)
        self.codebooks = nn.ModuleList(
            EMACodebook(options, unit=False) for _ in range(1 if options.shared else options.depth)
        )

    def forward(
        self,
        features: Features,
        generator: torch.Generator | None = None,
        step: Step | None = None,
    ) -> Bottlenecked:
        """Quantize level by level; in training, the codebooks take note."""
        with torch.autocast(features.device.type, enabled=False):
            latents = self.project_in(features.float())
            levels, left = self._levels(latents.detach())
            partial_sums = [latents.detach() - rest for rest in left]
            losses = [F.mse_loss(latents, partial) for partial in partial_sums]
            codes = row_of_grids([level.codes for level in levels])
            vectors = self._sum(codes)
            quantized = self.project_out(replaced(latents, vectors, self.options.gradient))
            if self.training:
                self._follow(levels)
        commitment_loss = torch.stack(losses).sum()
        use = [perplexity(codebook.use) for codebook in self.codebooks]
        return Bottlenecked(
            features=quantized,
            kl=None,
            auxiliary=self.options.commitment_weight * commitment_loss,
            codes=codes,
            statistics={
                "commitment": commitment_loss.detach(),
                "code_perplexity": torch.stack(use).mean(),
            }
            | {f"residual_{level}": loss.detach() for level, loss in enumerate(losses, start=1)},
        )

    def encode(self, features: Features) -> Row:
        """The codes of each cell, level after level in one row."""
        with torch.autocast(features.device.type, enabled=False):
            levels, _ = self._levels(self.project_in(features.float()))
        return row_of_grids([level.codes for level in levels])

    def decode(self, latents: Row) -> Features:
        """Features of the sums of the codes' entries."""
        with torch.autocast(latents.device.type, enabled=False):
            return self.project_out(self._sum(latents))

    def _codebook(self, level: int) -> EMACodebook:
        return self.codebooks[0 if self.options.shared else level]

    def _levels(self, latents: Grid) -> tuple[list[_Level], list[Grid]]:
        """Each level's view of the vectors, and what it leaves over."""
        levels, left = [], []
        residual = latents
        for level in range(self.options.depth):
            entries = self._codebook(level).entries
            codes, distances = nearest_codes(residual, entries)
            levels.append(_Level(residual, codes, distances))
            residual = residual - vectors_of(codes, entries)
            left.append(residual)
        return levels, left

    def _sum(self, codes: Row) -> Grid:
        grids = grids_of_row(codes, self.spec.parts)
        return sum(
            vectors_of(grid, self._codebook(level).entries) for level, grid in enumerate(grids)
        )

    def _follow(self, levels: list[_Level]) -> None:
        """Every codebook takes note, at once, of all that looked into it."""
        count = len(self.codebooks)
        for index, codebook in enumerate(self.codebooks):
            mine = levels[index::count]
            codebook.follow(
                torch.cat([flat_vectors(level.residual) for level in mine]),
                torch.cat([level.codes.flatten() for level in mine]),
                torch.cat([level.distances for level in mine]),
            )

    @torch.no_grad()
    def start_from_data(self, features: Features, generator: torch.Generator) -> None:
        """Entries become k-means centres of what the levels before leave of these features."""
        residuals = flat_vectors(self.project_in(features.float()))
        total, depth = self.options.num_codes, self.options.depth
        found = []
        for level in range(depth):
            share = total * (level + 1) // depth - total * level // depth
            size = share if self.options.shared else total
            centres, counts = self._codebook(level).centres(residuals, size, generator)
            residuals = residuals - centres[nearest(residuals, centres)[0]]
            found.append((centres, counts))
        if self.options.shared:
            entries, counts = zip(*found, strict=True)
            found = [(torch.cat(entries), torch.cat(counts))]
        for codebook, (entries, counts) in zip(self.codebooks, found, strict=True):
            codebook.place(entries, counts)

    @torch.no_grad()
    def after_step(self, generator: torch.Generator) -> None:
        """Codebooks follow the step; entries out of use move onto residuals of it."""
        for codebook in self.codebooks:
            codebook.end_step(generator)
