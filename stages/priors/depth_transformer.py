"""A stack of codes in every cell: cells one after another, and inside each its stack from the top.

    p(z given y) = prod_t prod_d p(z_td given z_<t, z_t1 ... z_t(d-1), y)

RQ-Transformer (Lee et al. 2022, arXiv:2203.01941, section 3.2). A row of all cells' stacks would be
D times as long as the grid, and attention over it D^2 times as dear. So a large transformer walks
along the T cells and a small one down the D codes of each:

    h_t  = Spatial(u_1 ... u_t),     u_t  = place_t + sum over d of e_d(z_(t-1)d),   u_1: the class
    h_td = Depth(v_t1 ... v_td),     v_td = depth_d + sum over d' < d of e_d'(z_td'),  v_t1: h_t
    p(z_td given ...) = softmax(W_d h_td)

Sums, because residual codes are made to be added: the sum to depth d is the vector as known so far.

Differs: every depth has an embedding and an output of its own, for bottlenecks whose depths do not
share a codebook; classes are embedded as the first input, with label dropout for guidance.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int, Shaped
from pydantic import Field
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import load_member
from stages.core.shapes import Codes, Labels, Nats
from stages.heads.base import Head, HeadOptions, TokenDraw
from stages.nn.class_labels import classes_of, drop_classes
from stages.nn.embedding import Embedding
from stages.nn.schedules import Step
from stages.nn.transformer import INITIAL_STD, Transformer
from stages.nn.transformer_options import CausalTransformerOptions
from stages.priors.base import AutoregressivePrior, PriorOptions

__all__ = ["DepthTransformerOptions", "DepthTransformerPrior"]

Classes = Int[Tensor, " batch"]
Stacks = Int[Tensor, "batch depth cells"]


class DepthTransformerOptions(CausalTransformerOptions, PriorOptions):
    """Size and regularisation of both transformers."""

    kind: Literal["depth_transformer"]
    models: ClassVar[tuple[LatentKind, ...]] = ("codes",)
    trainable: ClassVar[bool] = True
    has_head: ClassVar[bool] = True
    layers: int = Field(gt=0)
    """Of the transformer along the cells."""
    depth_layers: int = Field(gt=0)
    """Of the transformer down the stack of a cell; a few are enough (4 in the paper)."""

    def check_latents(self, spec: LatentSpec) -> None:
        """Refuse latents that are not a stack of grids of codes.

        Raises:
            ParamsError: If there are not several grids of one shape.
        """
        super().check_latents(spec)
        if len(spec.parts) < 2 or len(set(spec.parts)) > 1:
            stored = " then ".join(f"{rows}x{columns}" for rows, columns in spec.parts)
            raise ParamsError(
                "prior.kind: 'depth_transformer' models a stack of codes in every cell of one "
                f"grid, but the autoencoder stores {stored or 'one grid'}; choose bottleneck.kind "
                "residual_vq, or another prior"
            )


class DepthTransformerPrior(AutoregressivePrior):
    """A transformer along the cells and a small one down the stack of each."""

    def __init__(
        self,
        options: DepthTransformerOptions,
        head: HeadOptions,
        spec: LatentSpec,
        num_classes: int,
    ) -> None:
        super().__init__(options, head, spec, num_classes)
        self.num_classes = num_classes
        self.label_dropout = options.label_dropout
        rows, columns = spec.parts[0]
        level = LatentSpec("codes", rows, columns, num_codes=spec.num_codes)
        width = options.width
        self.heads = nn.ModuleList(
            load_member(Head, head.kind)(head, level, width) for _ in spec.parts
        )
        self.spatial = Transformer(options.layers, options)
        self.depth = Transformer(options.depth_layers, options)
        self.class_embedding = Embedding(num_classes + 1, width)
        self.row_position = nn.Parameter(torch.empty(rows, 1, width))
        self.column_position = nn.Parameter(torch.empty(1, columns, width))
        self.depth_position = nn.Parameter(torch.empty(len(spec.parts), width))
        for parameter in (
            self.class_embedding.weight,
            self.row_position,
            self.column_position,
            self.depth_position,
        ):
            nn.init.normal_(parameter, std=INITIAL_STD)
        self.noise_shape = (spec.tokens, self.heads[0].noise_dim)

    def log_prob(self, latents: Codes, labels: Labels | None) -> Nats:
        """log p(latents given labels) in nats per image, exact; None: under 'no class'."""
        return self._log_prob(latents, classes_of(labels, self.num_classes, latents))

    def loss(
        self, latents: Codes, labels: Labels | None, step: Step | None = None
    ) -> Float[Tensor, ""]:
        """Mean nats per code, some labels replaced by 'no class'."""
        classes = classes_of(labels, self.num_classes, latents)
        classes = drop_classes(classes, self.num_classes, self.label_dropout)
        return -self._log_prob(latents, classes).mean() / self.spec.tokens

    def hidden(self, stacks: Stacks, classes: Classes) -> Float[Tensor, "batch cells depth width"]:
        """The state that predicts each code from the cells before its own and the stack above it.

        Args:
            stacks: Codes by depth, cells in raster order.
            classes: Class of each image; `num_classes` means 'no class'.
        """
        embedded = torch.stack(
            [head.embed(codes) for head, codes in zip(self.heads, stacks.unbind(1), strict=True)],
            dim=2,
        )
        sums = embedded.cumsum(dim=2)
        first = self.class_embedding(classes).unsqueeze(1)
        along = torch.cat([first, sums[:, :-1, -1]], dim=1)
        cells = self.spatial(along + self._positions())
        down = torch.cat([cells.unsqueeze(2), sums[:, :, :-1]], dim=2) + self.depth_position
        return self.depth(down.flatten(0, 1)).unflatten(0, down.shape[:2])

    def walk(
        self,
        classes: Int[Tensor, " rows"],
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        draw: TokenDraw,
    ) -> Codes:
        """Cell by cell, and down each stack, with a cache for either."""
        # Numbers lie as the codes do: all cells of the first grid, then those of the second.
        by_cell = uniforms.unflatten(1, (len(self.heads), -1)).unbind(dim=2)
        inputs = self.class_embedding(classes)
        cache = self.spatial.new_cache(inputs, len(by_cell))
        stacks = []
        for position, numbers in zip(self._positions(), by_cell, strict=True):
            cell = self.spatial.step(inputs + position, cache)
            codes, inputs = self._sample_stack(cell, numbers, draw)
            stacks.append(codes)
        return torch.stack(stacks, dim=2).flatten(1).unsqueeze(1)

    def _sample_stack(
        self,
        cell: Float[Tensor, "rows width"],
        uniforms: Float[Tensor, "batch depth noise_dim"],
        draw: TokenDraw,
    ) -> tuple[Int[Tensor, "batch depth"], Float[Tensor, "rows width"]]:
        """The codes of one cell, and the sum of their embeddings for the next."""
        cache = self.depth.new_cache(cell, len(self.heads))
        inputs, total, codes = cell, torch.zeros_like(cell), []
        for index, head in enumerate(self.heads):
            hidden = self.depth.step(inputs + self.depth_position[index], cache)
            codes.append(draw(head, hidden, uniforms[:, index]))
            embedded = head.embed(codes[-1].unsqueeze(1)).squeeze(1)
            total = total + embedded.repeat(len(cell) // len(uniforms), 1)
            inputs = total
        return torch.stack(codes, dim=1), total

    def in_order(self, stored: Shaped[Tensor, "batch 1 tokens"]) -> Shaped[Tensor, "batch tokens"]:
        """From the order of storage, grid after grid, to that of generation, stack after stack."""
        return stored.flatten(1).unflatten(1, (len(self.heads), -1)).mT.flatten(1)

    def _log_prob(self, latents: Codes, classes: Classes) -> Nats:
        stacks = latents.unflatten(2, (len(self.heads), -1)).squeeze(1)
        hidden = self.hidden(stacks, classes)
        return torch.stack(
            [
                head.log_prob(states, codes).sum(dim=1)
                for head, states, codes in zip(
                    self.heads, hidden.unbind(2), stacks.unbind(1), strict=True
                )
            ]
        ).sum(dim=0)

    def _positions(self) -> Float[Tensor, "cells width"]:
        return (self.row_position + self.column_position).flatten(0, 1)
