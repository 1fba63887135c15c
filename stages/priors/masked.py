"""Codes guessed all at once from those that are known, a few more of them in every step.

    p(c_i given known codes, y) for every hidden cell i, by one bidirectional transformer

MaskGIT (Chang et al. 2022, arXiv:2202.04200). Training hides m of the N cells at random and asks
for their codes; `cosine` hides m = ceil(cos(pi u / 2) N), u ~ U(0, 1): mostly many. Sampling starts
with all cells hidden; step s of S draws every hidden code, keeps those the model is surest of, and
hides floor(cos(pi s / (2 S)) N) again (sections 3.1 and 3.2). Sure is

    log p(drawn code) + choice_temperature (1 - s / S) g,     g ~ Gumbel(0, 1)

so that early steps choose cells more by chance. A step costs one pass over all cells, whatever it
keeps: S passes, where an autoregressive prior takes N, each over one cell and with a cache.

Cells drawn in one step do not see each other, so what is sampled has no likelihood at hand. The
same network, one cell at a time in a random order, has: the mixture over orders of autoregressive
models, bounded by the mean over orders (Uria et al. 2014, arXiv:1310.1757; Hoogeboom et al. 2022,
arXiv:2110.02037, Eq. 3), with m cells M hidden and the others known,

    log p(c) >= E over orders of log p(c given the order)
              = E over m ~ U{1..N}, M of  N/m  sum over M of log p(c_i given the rest)

`log_prob` is this bound, its mean taken at a fixed list of hidden sets, with every m equally often
where their number is a multiple of N. For each image the sets are shifted along the cells by a hash
of its codes: sets that all images shared would leave an error that no amount of data averages out.
`masking: uniform` trains the bound itself (m ~ U{1..N}).

Classes, 'no class', label dropout and guidance: stages/nn/class_labels.py; a schedule of guidance
runs over the steps.

Differs: the loss is the mean over hidden cells of each image, then over images. Label smoothing
takes its uniform part at one random code per cell, which has the same mean. Guided or not, sureness
is that of the conditional model at temperature 1. Every step keeps at least one code. A class is
added to every cell, not a token of its own.
"""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from stages.bottlenecks.base import LatentKind, LatentSpec
from stages.core.randomness import torch_stream
from stages.core.sections import load_member
from stages.core.shapes import Codes, Labels, Nats
from stages.heads.base import Exactness, Head, HeadOptions, SamplerSettings
from stages.nn.bidirectional import BidirectionalTransformer
from stages.nn.class_labels import classes_of, drop_classes, rows_of_pass
from stages.nn.embedding import Embedding
from stages.nn.positions import LearnedPositions
from stages.nn.schedules import Step
from stages.nn.transformer import INITIAL_STD
from stages.nn.transformer_options import TransformerSizeOptions
from stages.priors.base import Prior, PriorOptions

__all__ = ["MaskedOptions", "MaskedPrior"]

_HASHING = 1_000_003
"""Of codes: how far the sets of the bound are shifted for an image."""

Tokens = Int[Tensor, "batch tokens"]
Cells = Int[Tensor, "batch cells"]


class MaskedOptions(TransformerSizeOptions, PriorOptions):
    """Size and regularisation, and how codes are hidden and found."""

    kind: Literal["masked"]
    models: ClassVar[tuple[LatentKind, ...]] = ("codes",)
    trainable: ClassVar[bool] = True
    has_head: ClassVar[bool] = True
    in_turn: ClassVar[bool] = False
    layers: int = Field(gt=0)
    dropout: float = Field(ge=0, lt=1)
    """Of the numbers of the inputs and of what every layer adds."""
    masking: Literal["cosine", "uniform"]
    """How many cells training hides: mostly many, or any number equally often."""
    label_smoothing: float = Field(ge=0, lt=1)
    """Share of the loss that asks for any code; MaskGIT: 0.1."""
    decoding_steps: int = Field(gt=0)
    """Passes per image when sampling (never more than cells); MaskGIT: 8 to 12."""
    choice_temperature: float = Field(ge=0)
    """How much chance decides which codes are kept; MaskGIT: 4.5."""
    bound_masks: int = Field(gt=0)
    """Sets of hidden cells at which the bound is looked at; best a multiple of the cells."""

    def log_prob_is(self, head: HeadOptions) -> Exactness:
        """A bound."""
        how = f"lower bound: mean over orders, at {self.bound_masks} sets of hidden cells"
        return Exactness("bound", how)


class MaskedPrior(Prior):
    """Bidirectional prior over grids of codes, decoded in parallel."""

    def __init__(
        self, options: MaskedOptions, head: HeadOptions, spec: LatentSpec, num_classes: int
    ) -> None:
        super().__init__(options, head, spec, num_classes)
        self.options, self.num_classes = options, num_classes
        self.label_dropout = options.label_dropout
        self.head = load_member(Head, head.kind)(head, spec, options.width)
        self.steps = min(options.decoding_steps, spec.tokens)
        self.noise_shape = (spec.tokens, self.steps * (self.head.noise_dim + 1))
        self.transformer = BidirectionalTransformer(
            options.layers, options.width, options.num_heads, options.dropout
        )
        self.class_embedding = Embedding(num_classes + 1, options.width)
        self.hidden_cell = nn.Parameter(torch.empty(options.width))
        for parameter in (self.class_embedding.weight, self.hidden_cell):
            nn.init.normal_(parameter, std=INITIAL_STD)
        grids = spec.parts or ((spec.grid_height, spec.grid_width),)
        self.positions = LearnedPositions(grids, options.width, any_order=False)
        masks = _masks_of_bound(spec.tokens, options.bound_masks)
        self.register_buffer("bound_masks", masks, persistent=False)

    def log_prob(self, latents: Codes, labels: Labels | None) -> Nats:
        """A lower bound of log p(codes given labels) in nats per image; None: under 'no class'."""
        tokens = latents.flatten(1)
        classes = classes_of(labels, self.num_classes, latents)
        total = torch.zeros(len(tokens), device=tokens.device)
        cells = torch.arange(self.spec.tokens, device=tokens.device)
        shifted = (cells + (tokens * (_HASHING + cells)).sum(dim=1, keepdim=True)) % len(cells)
        for mask in self.bound_masks:
            hidden = mask[shifted]
            nats = self.head.log_prob(self.states(tokens, hidden, classes), tokens)
            total += (nats * hidden).sum(dim=1) / mask.sum()
        return total * (self.spec.tokens / len(self.bound_masks))

    def loss(
        self, latents: Codes, labels: Labels | None, step: Step | None = None
    ) -> Float[Tensor, ""]:
        """Nats per hidden cell, some labels replaced by 'no class'."""
        tokens = latents.flatten(1)
        classes = classes_of(labels, self.num_classes, latents)
        classes = drop_classes(classes, self.num_classes, self.label_dropout)
        hidden = self._hidden_by_chance(tokens)
        states = self.states(tokens, hidden, classes)
        nats, smoothing = -self.head.log_prob(states, tokens), self.options.label_smoothing
        if smoothing:
            any_code = torch.randint_like(tokens, self.spec.num_codes)
            nats = (1 - smoothing) * nats - smoothing * self.head.log_prob(states, any_code)
        return ((nats * hidden).sum(dim=1) / hidden.sum(dim=1)).mean()

    def states(
        self,
        tokens: Tokens,
        hidden: Bool[Tensor, "batch tokens"],
        classes: Int[Tensor, " batch"],
    ) -> Float[Tensor, "batch tokens width"]:
        """The state of every cell, which predicts its code where that is hidden.

        Args:
            tokens: Codes in raster order; those of hidden cells are not looked at.
            hidden: Which are hidden.
            classes: Class of each image; `num_classes` means 'no class'.
        """
        seen = torch.where(hidden.unsqueeze(-1), self.hidden_cell, self.head.embed(tokens))
        told = self.positions.told(None) + self.class_embedding(classes).unsqueeze(1)
        return self.transformer(seen + told)

    @torch.no_grad()
    def sample(
        self,
        labels: Labels | None,
        uniforms: Float[Tensor, "batch tokens noise_dim"],
        settings: SamplerSettings,
    ) -> Codes:
        """Codes found in a few steps; under guidance both passes share a batch.

        Raises:
            ParamsError: If guidance is asked for without classes or without label dropout.
        """
        batch, count = len(uniforms), self.spec.tokens
        classes = rows_of_pass(
            labels, self.num_classes, self.label_dropout, settings.guidance, uniforms
        )
        tokens = torch.zeros(batch, count, dtype=torch.int64, device=uniforms.device)
        cells = torch.arange(count, device=uniforms.device).expand(batch, count)
        numbers = uniforms.chunk(self.steps, dim=2)
        for step, left in enumerate(self.hidden_after_steps()):
            states = self._states_of(cells, tokens, classes)
            of_cells = _at(numbers[step], cells)
            here = settings.at(step, self.steps)
            drawn = self._drawn(states, of_cells[..., :-1], here)
            tokens = tokens.scatter(1, cells, drawn)
            sureness = self.head.log_prob(states[:batch], drawn)
            chance = -torch.log(-torch.log(of_cells[..., -1]))
            sureness += self.options.choice_temperature * (1 - (step + 1) / self.steps) * chance
            cells = cells.gather(1, sureness.argsort(dim=1, stable=True)[:, :left])
        return tokens.unflatten(1, (self.spec.grid_height, self.spec.grid_width))

    def hidden_after_steps(self) -> list[int]:
        """How many cells are hidden after each step: a cosine, one less each step at least."""
        left, before = [], self.spec.tokens
        for step in range(1, self.steps + 1):
            share = math.cos(0.5 * math.pi * step / self.steps)
            wanted = math.floor(share * self.spec.tokens)
            # As many as steps to come, so that every one of them has something to find.
            before = max(min(wanted, before - 1), self.steps - step)
            left.append(before)
        return left

    def _states_of(
        self, cells: Cells, tokens: Tokens, classes: Int[Tensor, " rows"]
    ) -> Float[Tensor, "rows cells width"]:
        """States of the hidden cells, for each image with its class and, guided, without."""
        hidden = torch.zeros_like(tokens, dtype=torch.bool).scatter(1, cells, True)
        passes = len(classes) // len(tokens)
        states = self.states(tokens.repeat(passes, 1), hidden.repeat(passes, 1), classes)
        return _at(states, cells.repeat(passes, 1))

    def _drawn(
        self,
        states: Float[Tensor, "rows cells width"],
        numbers: Float[Tensor, "batch cells noise_dim"],
        settings: SamplerSettings,
    ) -> Cells:
        """A code for every hidden cell, each by its own numbers."""
        conditional, *others = (part.flatten(0, 1) for part in states.split(len(numbers)))
        unconditional = others[0] if others and settings.guidance != 1 else None
        drawn = self.head.sample(conditional, unconditional, numbers.flatten(0, 1), settings)
        return drawn.unflatten(0, numbers.shape[:2])

    def _hidden_by_chance(self, tokens: Tokens) -> Bool[Tensor, "batch tokens"]:
        batch, count = tokens.shape
        share = torch.rand(batch, 1, device=tokens.device)
        if self.options.masking == "cosine":
            share = torch.cos(0.5 * math.pi * share)
        number = torch.ceil(share * count).clamp(min=1)
        places = torch.rand(batch, count, device=tokens.device).argsort(dim=1).argsort(dim=1)
        return places < number


def _at(
    values: Float[Tensor, "rows tokens numbers"], cells: Int[Tensor, "rows cells"]
) -> Float[Tensor, "rows cells numbers"]:
    """The values of some cells of each row."""
    return values.gather(1, cells.unsqueeze(-1).expand(-1, -1, values.shape[-1]))


def _masks_of_bound(tokens: int, count: int) -> Bool[Tensor, "count tokens"]:
    """Which cells are hidden at each point of the bound: all numbers of them, at random places."""
    stream = torch_stream(0, "masks of the bound", tokens, count)
    strata = (torch.arange(count) + torch.rand(count, generator=stream)) / count
    numbers = (strata * tokens).long().clamp(max=tokens - 1) + 1
    places = torch.rand(count, tokens, generator=stream).argsort(dim=1).argsort(dim=1)
    return places < numbers.unsqueeze(1)
