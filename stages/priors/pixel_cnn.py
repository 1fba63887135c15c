"""Latents cell by cell, each given the cells before it as gated convolutions see them.

    p(z given y) = prod_t p(z_t given z_<t, y),    t along the rows of the grid, left to right

Gated PixelCNN (van den Oord et al. 2016, arXiv:1606.05328) over a grid of codes, the prior of
VQ-VAE (van den Oord et al. 2017, arXiv:1711.00937, section 4.2), or of continuous cells with a
density for a head. Two stacks of convolutions see all cells before (stages/nn/gated_stacks.py); the
class is a bias of every gate. What is far reaches a cell through many layers: n layers of reach r
see n r rows and columns, where a transformer sees everything at once; what is near costs few
weights, which small data sets reward.

Classes, 'no class', label dropout and guidance: stages/nn/class_labels.py.

Differs: cells are embedded by the head in the place of a first masked convolution over one-hot
codes, so that both kinds of latents go through the same network.
"""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, field_validator
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.errors import ParamsError
from stages.core.sections import load_member
from stages.core.shapes import Labels, Nats
from stages.heads.base import Head, HeadOptions, TokenDraw
from stages.nn.class_labels import classes_of, drop_classes
from stages.nn.embedding import Embedding
from stages.nn.gated_stacks import GatedStacks
from stages.nn.rms_norm import RMSNorm
from stages.nn.schedules import Step
from stages.priors.base import AutoregressivePrior, PriorOptions

__all__ = ["PixelCnnOptions", "PixelCnnPrior"]


class PixelCnnOptions(PriorOptions):
    """Size and regularisation."""

    kind: Literal["pixel_cnn"]
    models: ClassVar[tuple[LatentKind, ...]] = ("codes", "continuous")
    trainable: ClassVar[bool] = True
    has_head: ClassVar[bool] = True
    layers: int = Field(gt=0)
    """Of both stacks."""
    width: int = Field(gt=0)
    """Maps of each stack."""
    kernel_size: int = Field(ge=3)
    """Rows and columns of the windows before they are cut to the past, odd."""
    dropout: float = Field(ge=0, lt=1)
    """Of the embedded cells, and of what every layer adds."""
    label_dropout: float = Field(ge=0, lt=1)
    """How often training replaces the class by 'no class'; above 0 if guidance is wanted."""

    @field_validator("kernel_size")
    @classmethod
    def _has_a_middle(cls, kernel_size: int) -> int:
        if kernel_size % 2 == 0:
            raise ValueError("must be odd")
        return kernel_size

    def check_latents(self, spec: LatentSpec) -> None:
        """Refuse rows of several grids: they have no neighbourhoods.

        Raises:
            ParamsError: If there is more than one grid.
        """
        super().check_latents(spec)
        if spec.parts:
            stored = " then ".join(f"{rows}x{columns}" for rows, columns in spec.parts)
            raise ParamsError(
                f"prior.kind: 'pixel_cnn' models one grid, but the autoencoder stores {stored}; "
                "choose transformer, two_level or depth_transformer"
            )


class PixelCnnPrior(AutoregressivePrior):
    """Autoregressive prior over a grid of codes or of continuous cells."""

    def __init__(
        self, options: PixelCnnOptions, head: HeadOptions, spec: LatentSpec, num_classes: int
    ) -> None:
        super().__init__(options, head, spec, num_classes)
        self.num_classes = num_classes
        self.label_dropout = options.label_dropout
        width, layers = options.width, options.layers
        self.head = load_member(Head, head.kind)(head, spec, width)
        self.noise_shape = (spec.tokens, self.head.noise_dim)
        self.stacks = GatedStacks(layers, width, options.kernel_size, options.dropout)
        self.class_biases = Embedding(num_classes + 1, layers * 2 * 2 * width)
        self.input_norm = RMSNorm(width)
        self.norm = RMSNorm(width)
        # Half as loud as what they are added to: quieter, and few steps learn no classes.
        nn.init.normal_(self.class_biases.weight, std=0.5)

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
        tokens = self.in_order(latents)
        return self.head.loss(self.hidden(tokens, classes), tokens).mean()

    def hidden(
        self, tokens: Tensor, classes: Int[Tensor, " batch"]
    ) -> Float[Tensor, "batch tokens width"]:
        """The state that predicts each token from those before it.

        Args:
            tokens: As the head takes them, in raster order; the last one is not looked at.
            classes: Class of each image; `num_classes` means 'no class'.
        """
        grid = (self.spec.grid_height, self.spec.grid_width)
        embedded = self._embedded(tokens).unflatten(2, grid)
        return self.norm(self.stacks(embedded, self._told(classes)).flatten(2).mT)

    def walk(
        self,
        classes: Int[Tensor, " rows"],
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        draw: TokenDraw,
    ) -> Tensor:
        """Along the rows of the grid, left to right."""
        rows, columns = self.spec.grid_height, self.spec.grid_width
        cache = self.stacks.new_cache(self._told(classes), rows, columns)
        tokens, embedded = [], []
        for index, numbers in enumerate(uniforms.unbind(dim=1)):
            row, column = divmod(index, columns)
            if column == 0:
                cache.start_row(row, torch.cat(embedded[-columns:], dim=3) if row else None)
            hidden = self.norm(cache.cell(column, embedded[-1] if column else None))
            tokens.append(draw(self.head, hidden, numbers))
            cell = self._embedded(tokens[-1].unsqueeze(1)).unsqueeze(2)
            embedded.append(cell.repeat(len(classes) // len(cell), 1, 1, 1))
        return self._stored(torch.stack(tokens, dim=1))

    def _embedded(self, tokens: Tensor) -> Float[Tensor, "batch width tokens"]:
        return self.input_norm(self.head.embed(tokens)).mT

    def _told(self, classes: Int[Tensor, " batch"]) -> Float[Tensor, "batch layers stacks gates"]:
        return self.class_biases(classes).unflatten(1, (len(self.stacks.layers), 2, -1))
