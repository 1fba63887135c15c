"""Latents one token at a time, each given all before it and the class.

    p(z given y) = prod_t p(z_t given z_<t, y),    t along the rows of the grid, left to right

Position t of the transformer reads token t - 1 (the class at t = 0) and is told the place of the
cell it is to predict (stages/nn/positions.py); rows may hold several grids of codes
(stages/nn/code_grids.py). The head turns its hidden state into p(z_t given ...): softmax over
codes (taming-transformers, Esser et al. 2021, arXiv:2012.09841; LlamaGen, Sun et al. 2024,
arXiv:2406.06525), a density over continuous cells (GIVT, Tschannen et al. 2023, arXiv:2312.02116),
or something to draw from whose density is bounded or integrated (MAR, Li et al. 2024,
arXiv:2406.11838). The likelihood is as exact as the head's.

Classes, 'no class', label dropout and guidance: stages/nn/class_labels.py. Training may go through
the tokens in random orders first (stages/nn/orders.py); likelihoods and samples are in raster order
in any case.

Differs: rotary positions turn a query by the place of the cell it is to predict, not by that of the
token it was read from.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.sections import load_member
from stages.core.shapes import Labels, Nats
from stages.heads.base import Head, HeadOptions, TokenDraw
from stages.nn.class_labels import classes_of, drop_classes
from stages.nn.embedding import Embedding
from stages.nn.orders import draw_orders, random_share
from stages.nn.positions import LearnedPositions, Order, RotaryPositions
from stages.nn.schedules import Step
from stages.nn.transformer import INITIAL_STD, Transformer
from stages.nn.transformer_options import CausalTransformerOptions
from stages.priors.base import AutoregressivePrior, PriorOptions

__all__ = ["TransformerOptions", "TransformerPrior"]


class TransformerOptions(CausalTransformerOptions, PriorOptions):
    """Size, regularisation, places and order."""

    kind: Literal["transformer"]
    models: ClassVar[tuple[LatentKind, ...]] = ("codes", "continuous")
    trainable: ClassVar[bool] = True
    has_head: ClassVar[bool] = True
    layers: int = Field(gt=0)
    positions: Literal["learned", "rotary"]
    """Whether places are learned vectors or rotations of queries and keys."""
    order: Literal["raster", "random_to_raster"]
    """Of the tokens while training."""
    random_until: int = Field(ge=0)
    """Steps in which every order is random; 0 with order raster."""
    raster_from: int = Field(ge=0)
    """Step from which every order is raster, above `random_until`; 0 with order raster."""

    @model_validator(mode="after")
    def _rotations_come_in_pairs(self) -> "TransformerOptions":
        head_dim = self.width // self.num_heads
        if self.positions == "rotary" and head_dim % 4:
            raise ValueError(
                "width / num_heads must be a multiple of 4 with positions rotary (pairs of numbers "
                f"for rows and for columns); got {self.width} / {self.num_heads} = {head_dim}"
            )
        return self

    @model_validator(mode="after")
    def _orders_end_in_raster(self) -> "TransformerOptions":
        steps = f"random_until {self.random_until} and raster_from {self.raster_from}"
        if self.order == "raster" and (self.random_until or self.raster_from):
            raise ValueError(
                f"random_until and raster_from must be 0 with order raster; got {steps}"
            )
        if self.order == "random_to_raster" and self.random_until >= self.raster_from:
            raise ValueError(f"random_until must be below raster_from; got {steps}")
        return self


class TransformerPrior(AutoregressivePrior):
    """Autoregressive prior over a grid of codes or of continuous cells."""

    def __init__(
        self, options: TransformerOptions, head: HeadOptions, spec: LatentSpec, num_classes: int
    ) -> None:
        super().__init__(options, head, spec, num_classes)
        self.num_classes = num_classes
        self.label_dropout = options.label_dropout
        self.head = load_member(Head, head.kind)(head, spec, options.width)
        self.noise_shape = (spec.tokens, self.head.noise_dim)
        self.transformer = Transformer(options.layers, options)
        self.class_embedding = Embedding(num_classes + 1, options.width)
        nn.init.normal_(self.class_embedding.weight, std=INITIAL_STD)
        any_order = options.order == "random_to_raster"
        self.anneal = (options.random_until, options.raster_from) if any_order else None
        grids = spec.parts or ((spec.grid_height, spec.grid_width),)
        self.positions = (
            RotaryPositions(grids, options.width, options.width // options.num_heads)
            if options.positions == "rotary"
            else LearnedPositions(grids, options.width, any_order=any_order)
        )

    def log_prob(self, latents: Tensor, labels: Labels | None) -> Nats:
        """log p(latents given labels) in nats per image; None: under 'no class'."""
        classes = classes_of(labels, self.num_classes, latents)
        tokens = self.in_order(latents)
        return self.head.log_prob(self.hidden(tokens, classes), tokens).sum(dim=1)

    def loss(
        self, latents: Tensor, labels: Labels | None, step: Step | None = None
    ) -> Float[Tensor, ""]:
        """The head's loss, mean over tokens, some labels replaced by 'no class'."""
        classes = classes_of(labels, self.num_classes, latents)
        classes = drop_classes(classes, self.num_classes, self.label_dropout)
        tokens, order = self.in_order(latents), None
        if self.anneal is not None:
            share = random_share(step, *self.anneal)
            order = draw_orders(*tokens.shape[:2], share, tokens.device)
            tokens = tokens[torch.arange(len(tokens), device=order.device).unsqueeze(1), order]
        return self.head.loss(self.hidden(tokens, classes, order), tokens).mean()

    def hidden(
        self, tokens: Tensor, classes: Int[Tensor, " batch"], order: Order | None = None
    ) -> Float[Tensor, "batch tokens width"]:
        """The state that predicts each token from those before it.

        Args:
            tokens: As the head takes them, in their order; the last one is not looked at.
            classes: Class of each image; `num_classes` means 'no class'.
            order: Which cells the tokens are of; None: raster.
        """
        first = self.class_embedding(classes).unsqueeze(1)
        inputs = torch.cat([first, self.head.embed(tokens[:, :-1])], dim=1)
        told = self.positions.told(order)
        return self.transformer(inputs + told, self.positions.rotations(order))

    def walk(
        self,
        classes: Int[Tensor, " rows"],
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        draw: TokenDraw,
    ) -> Tensor:
        """Along the rows of the grid, left to right."""
        inputs = self.class_embedding(classes)
        cache = self.transformer.new_cache(inputs, self.spec.tokens)
        places, rotations = self.positions.told(None)[0], self.positions.rotations(None)
        tokens = []
        for place, numbers in zip(places, uniforms.unbind(dim=1), strict=True):
            hidden = self.transformer.step(inputs + place, cache, rotations)
            tokens.append(draw(self.head, hidden, numbers))
            inputs = self.head.embed(tokens[-1].unsqueeze(1)).squeeze(1)
            inputs = inputs.repeat(len(classes) // len(inputs), 1)
        return self._stored(torch.stack(tokens, dim=1))
