"""Latents one token at a time, each given all before it and the class.

    p(z given y) = prod_t p(z_t given z_<t, y),    t along the rows of the grid, left to right

Position t of the transformer reads token t - 1 (the class at t = 0) plus the learned place of the
cell it is to predict, row and column added; where a row holds several grids of codes, also which of
them (stages/nn/code_grids.py). The head turns its hidden state into p(z_t given ...). The
likelihood is exact, whatever the head: softmax over codes (taming-transformers, Esser et al. 2021,
arXiv:2012.09841; LlamaGen, Sun et al. 2024, arXiv:2406.06525) or a density over continuous cells
(GIVT, Tschannen et al. 2023, arXiv:2312.02116).

Classes, 'no class', label dropout and guidance: stages/nn/class_labels.py.

Differs: positions are learned per row and per column, not rotary: grids have one size here.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.sections import load_member
from stages.core.shapes import Labels, Nats
from stages.heads.base import Head, HeadOptions, KnownTokens, SamplerSettings, TokenDraw
from stages.nn.class_labels import classes_of, drop_classes, rows_of_pass
from stages.nn.code_grids import place_embeddings
from stages.nn.transformer import INITIAL_STD, Transformer
from stages.nn.transformer_options import TransformerSizeOptions
from stages.priors.base import Completion, KnownLatents, Prior, PriorOptions

__all__ = ["TransformerOptions", "TransformerPrior"]


class TransformerOptions(TransformerSizeOptions, PriorOptions):
    """Size and regularisation."""

    kind: Literal["transformer"]
    models: ClassVar[tuple[LatentKind, ...]] = ("codes", "continuous")
    trainable: ClassVar[bool] = True
    has_head: ClassVar[bool] = True
    layers: int = Field(gt=0)


class TransformerPrior(Prior):
    """Autoregressive prior over a grid of codes or of continuous cells."""

    def __init__(
        self, options: TransformerOptions, head: HeadOptions, spec: LatentSpec, num_classes: int
    ) -> None:
        super().__init__(options, head, spec, num_classes)
        self.num_classes = num_classes
        self.label_dropout = options.label_dropout
        self.head = load_member(Head, head.kind)(head, spec, options.width)
        self.noise_shape = (spec.tokens, self.head.noise_dim)
        self.transformer = Transformer(
            options.layers, options.width, options.num_heads, options.dropout
        )
        self.class_embedding = nn.Embedding(num_classes + 1, options.width)
        grids = spec.parts or ((spec.grid_height, spec.grid_width),)
        rows, columns = (max(sizes) for sizes in zip(*grids, strict=True))
        self.row_position = nn.Parameter(torch.empty(rows, 1, options.width))
        self.column_position = nn.Parameter(torch.empty(1, columns, options.width))
        learned = [self.class_embedding.weight, self.row_position, self.column_position]
        if spec.parts:
            self.part_position = nn.Parameter(torch.empty(len(spec.parts), options.width))
            learned.append(self.part_position)
        for parameter in learned:
            nn.init.normal_(parameter, std=INITIAL_STD)

    def log_prob(self, latents: Tensor, labels: Labels | None) -> Nats:
        """log p(latents given labels) in nats per image, exact; None: under 'no class'."""
        classes = classes_of(labels, self.num_classes, latents)
        return self._log_prob_per_token(latents, classes).sum(dim=1)

    def loss(self, latents: Tensor, labels: Labels | None) -> Float[Tensor, ""]:
        """Mean nats per token, some labels replaced by 'no class'."""
        classes = classes_of(labels, self.num_classes, latents)
        classes = drop_classes(classes, self.num_classes, self.label_dropout)
        return -self._log_prob_per_token(latents, classes).mean()

    def hidden(
        self, tokens: Tensor, classes: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch tokens width"]:
        """The state that predicts each token from those before it.

        Args:
            tokens: As the head takes them, in raster order; the last one is not looked at.
            classes: Class of each image; `num_classes` means 'no class'.
        """
        first = self.class_embedding(classes).unsqueeze(1)
        inputs = torch.cat([first, self.head.embed(tokens[:, :-1])], dim=1)
        return self.transformer(inputs + self._positions())

    def sample(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        settings: SamplerSettings,
    ) -> Tensor:
        """Latents drawn token by token with a cache; under guidance both passes share a batch.

        Raises:
            ParamsError: If guidance is asked for without classes or without label dropout.
        """
        return self._walk(labels, uniforms, TokenDraw(settings, self.spec.tokens))

    def complete(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        settings: SamplerSettings,
        known: KnownLatents,
    ) -> Completion:
        """Exact where the known cells come before all others in raster order.

        Raises:
            ParamsError: As for `sample`.
        """
        given = KnownTokens(self._tokens(known.latents), known.mask.flatten(1))
        draw = TokenDraw(settings, self.spec.tokens, given)
        latents = self._walk(labels, uniforms, draw)
        assert draw.log_weight is not None
        return Completion(latents, draw.log_weight, exact=given.come_first)

    @torch.no_grad()
    def _walk(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        draw: TokenDraw,
    ) -> Tensor:
        classes = rows_of_pass(
            labels, self.num_classes, self.label_dropout, draw.settings.guidance, uniforms
        )
        inputs = self.class_embedding(classes)
        cache = self.transformer.new_cache(inputs, self.spec.tokens)
        tokens = []
        for position, numbers in zip(self._positions(), uniforms.unbind(dim=1), strict=True):
            hidden = self.transformer.step(inputs + position, cache)
            tokens.append(draw(self.head, hidden, numbers))
            inputs = self.head.embed(tokens[-1].unsqueeze(1)).squeeze(1)
            inputs = inputs.repeat(len(classes) // len(inputs), 1)
        return self._grid(torch.stack(tokens, dim=1))

    def _log_prob_per_token(
        self, latents: Tensor, classes: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch tokens"]:
        tokens = self._tokens(latents)
        return self.head.log_prob(self.hidden(tokens, classes), tokens)

    def _positions(self) -> Float[Tensor, "tokens width"]:
        if self.spec.parts:
            return place_embeddings(
                self.row_position, self.column_position, self.part_position, self.spec.parts
            )
        return (self.row_position + self.column_position).flatten(0, 1)

    def _tokens(self, latents: Tensor) -> Tensor:
        # The two grid axes are last in both kinds; channels go behind the tokens.
        tokens = latents.flatten(-2)
        return tokens if self.spec.kind == "codes" else tokens.mT

    def _grid(self, tokens: Tensor) -> Tensor:
        tokens = tokens if self.spec.kind == "codes" else tokens.mT.contiguous()
        return tokens.unflatten(-1, (self.spec.grid_height, self.spec.grid_width))
