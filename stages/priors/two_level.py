"""A coarse grid of codes first, then a fine one given it.

    p(c, f given y) = prod_i p(c_i given c_<i, y)  prod_j p(f_j given f_<j, c, y)

The prior of VQ-VAE-2 (Razavi et al. 2019, arXiv:1906.00446, section 3.2): what an image shows is
settled on a small grid, where every cell can look at all others for little, and detail is filled in
afterwards. Both factors are transformers over their own grid in raster order. The fine one adds, at
each cell, what the whole coarse grid says about that place: the embedded coarse codes, mixed over
their neighbourhood by convolutions (they are all known, so nothing has to be causal there), each
repeated over the cells it covers.

Differs: transformers in place of PixelSNAIL and PixelCNN; both levels know the class, as there, and
learn with label dropout, so that guidance works on both.
"""

from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import load_member
from stages.core.shapes import Codes, Labels, Nats
from stages.heads.base import Head, HeadOptions, TokenDraw
from stages.nn.class_labels import classes_of, drop_classes
from stages.nn.code_grids import grids_of_row, row_of_grids
from stages.nn.embedding import Embedding
from stages.nn.residual import residual_blocks
from stages.nn.schedules import Step
from stages.nn.transformer import INITIAL_STD, Transformer
from stages.nn.transformer_options import CausalTransformerOptions
from stages.priors.base import AutoregressivePrior, PriorOptions

__all__ = ["TwoLevelOptions", "TwoLevelPrior"]

Classes = Int[Tensor, " batch"]
Context = Float[Tensor, "batch tokens width"]


class TwoLevelOptions(CausalTransformerOptions, PriorOptions):
    """Size and regularisation of both levels."""

    kind: Literal["two_level"]
    models: ClassVar[tuple[LatentKind, ...]] = ("codes",)
    trainable: ClassVar[bool] = True
    has_head: ClassVar[bool] = True
    coarse_layers: int = Field(gt=0)
    """Of the transformer over the coarse grid."""
    fine_layers: int = Field(gt=0)
    """Of the transformer over the fine grid."""
    context_blocks: int = Field(ge=0)
    """Residual 3x3 blocks that mix the coarse codes before the fine level sees them; 0: each fine
    cell is told the code of its own place only."""
    width: int = Field(ge=2)
    """Of both residual streams, and of the blocks between; a multiple of `num_heads`."""

    def check_latents(self, spec: LatentSpec) -> None:
        """Refuse latents that are not a coarse grid of codes and a fine one.

        Raises:
            ParamsError: If there are not two grids, or the cells of one do not cover equally many
                cells of the other.
        """
        super().check_latents(spec)
        fits = len(spec.parts) == 2 and all(
            fine % coarse == 0 for coarse, fine in zip(*spec.parts, strict=True)
        )
        if not fits:
            stored = " then ".join(f"{rows}x{columns}" for rows, columns in spec.parts)
            raise ParamsError(
                "prior.kind: 'two_level' models a coarse grid of codes and a fine one whose rows "
                "and columns are multiples of it, but the autoencoder stores "
                f"{stored or 'one grid'}; choose autoencoder.kind hierarchical_vq, or another prior"
            )


class TwoLevelPrior(AutoregressivePrior):
    """A transformer over coarse codes and another over fine ones."""

    def __init__(
        self, options: TwoLevelOptions, head: HeadOptions, spec: LatentSpec, num_classes: int
    ) -> None:
        super().__init__(options, head, spec, num_classes)
        self.num_classes = num_classes
        self.label_dropout = options.label_dropout
        coarse, fine = (LatentSpec("codes", *part, num_codes=spec.num_codes) for part in spec.parts)
        self.coarse = _Level(options, options.coarse_layers, head, coarse, num_classes)
        self.fine = _Level(options, options.fine_layers, head, fine, num_classes)
        self.context_embedding = Embedding(spec.num_codes, options.width)
        nn.init.normal_(self.context_embedding.weight, std=INITIAL_STD)
        self.context_blocks = nn.Sequential(*residual_blocks(options.width, options.context_blocks))
        self.noise_shape = (spec.tokens, self.fine.head.noise_dim)

    def log_prob(self, latents: Codes, labels: Labels | None) -> Nats:
        """log p(coarse given labels) + log p(fine given coarse, labels), nats per image, exact."""
        return self._log_prob(latents, classes_of(labels, self.num_classes, latents))

    def loss(
        self, latents: Codes, labels: Labels | None, step: Step | None = None
    ) -> Float[Tensor, ""]:
        """Mean nats per code over both grids, some labels replaced by 'no class'."""
        classes = classes_of(labels, self.num_classes, latents)
        classes = drop_classes(classes, self.num_classes, self.label_dropout)
        return -self._log_prob(latents, classes).mean() / self.spec.tokens

    def walk(
        self,
        classes: Int[Tensor, " rows"],
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        draw: TokenDraw,
    ) -> Codes:
        """Coarse codes, then fine ones given them."""
        tokens = self.coarse.spec.tokens
        coarse = self.coarse.sample(classes, uniforms[:, :tokens], draw, None)
        context = self.context(coarse)
        context = context.repeat(len(classes) // len(context), 1, 1)
        fine = self.fine.sample(classes, uniforms[:, tokens:], draw, context)
        return row_of_grids([coarse, fine])

    def context(self, coarse: Codes) -> Context:
        """What the coarse codes say to each cell of the fine grid, in its raster order."""
        maps = self.context_blocks(self.context_embedding(coarse).permute(0, 3, 1, 2))
        fine = self.fine.spec
        maps = maps.repeat_interleave(fine.grid_height // coarse.shape[1], dim=2)
        return maps.repeat_interleave(fine.grid_width // coarse.shape[2], dim=3).flatten(2).mT

    def _log_prob(self, latents: Codes, classes: Classes) -> Nats:
        coarse, fine = grids_of_row(latents, self.spec.parts)
        return self.coarse.log_prob(coarse, classes, None) + self.fine.log_prob(
            fine, classes, self.context(coarse)
        )


class _Level(nn.Module):
    """One grid of codes, each given those before it, the class, and the context of its cell."""

    def __init__(
        self,
        options: TwoLevelOptions,
        layers: int,
        head: HeadOptions,
        spec: LatentSpec,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.spec = spec
        self.head: Any = load_member(Head, head.kind)(head, spec, options.width)
        self.transformer = Transformer(layers, options)
        self.class_embedding = Embedding(num_classes + 1, options.width)
        self.row_position = nn.Parameter(torch.empty(spec.grid_height, 1, options.width))
        self.column_position = nn.Parameter(torch.empty(1, spec.grid_width, options.width))
        for parameter in (self.class_embedding.weight, self.row_position, self.column_position):
            nn.init.normal_(parameter, std=INITIAL_STD)

    def log_prob(self, codes: Codes, classes: Classes, context: Context | None) -> Nats:
        """log p(codes given classes, context) in nats per image."""
        tokens = codes.flatten(1)
        first = self.class_embedding(classes).unsqueeze(1)
        inputs = torch.cat([first, self.head.embed(tokens[:, :-1])], dim=1)
        hidden = self.transformer(inputs + self._told(context))
        return self.head.log_prob(hidden, tokens).sum(dim=1)

    def sample(
        self,
        classes: Int[Tensor, " rows"],
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        draw: TokenDraw,
        context: Float[Tensor, "rows tokens width"] | None,
    ) -> Codes:
        """Codes drawn one by one; twice as many rows as images: the second half has no class."""
        inputs = self.class_embedding(classes)
        cache = self.transformer.new_cache(inputs, self.spec.tokens)
        told, codes = self._told(context), []
        for index, numbers in enumerate(uniforms.unbind(dim=1)):
            hidden = self.transformer.step(inputs + told[:, index], cache)
            codes.append(draw(self.head, hidden, numbers))
            inputs = self.head.embed(codes[-1].unsqueeze(1)).squeeze(1)
            inputs = inputs.repeat(len(classes) // len(inputs), 1)
        return torch.stack(codes, dim=1).unflatten(1, (self.spec.grid_height, self.spec.grid_width))

    def _told(self, context: Context | None) -> Float[Tensor, "_ tokens width"]:
        """What each position is told beside the past: its place, and the context of its cell."""
        places = (self.row_position + self.column_position).flatten(0, 1).unsqueeze(0)
        return places if context is None else places + context
