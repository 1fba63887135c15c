"""A powerful decoder: every intensity given z and the intensities before it.

    p(x given z) = prod over i of p(x_i given x_<i, z)     raster order; red, green, blue in a pixel

The decoder's maps are added to what a strict masked convolution sees of the image, and masked
residual blocks turn the sum into a softmax over the `levels` of x_i (PixelVAE, Gulrajani et al.
2016, arXiv:1611.05013; PixelCNN, van den Oord et al. 2016, arXiv:1601.06759).

Such a decoder can explain an image from the pixels beside each other and leave z idle: posterior
collapse. What it can see is what z need not tell. `context` limits it: with a context of a few
pixels, textures are its own affair and everything larger must come through z (Variational Lossy
Autoencoder, Chen et al. 2016, arXiv:1611.02731, section 3.1). With layers 0 intensities are
independent given z, and two levels are `bernoulli`.

    context   sees of the rows above and of its own row to the left, so many pixels each way; of a
              row a above, to the right only a columns (stages/nn/masked_convolution.py)

Images are rounded to the levels first: `nearest`, or `dynamic`, up or down at random such that the
mean is the intensity; of two levels, dynamic binarisation (Salakhutdinov & Murray 2008).

E[x given z] is a sum over all images. `mean` gives instead the image whose every intensity is the
conditional mean given those before it in the same image, or what `mean_sweeps` parallel sweeps
towards it give: each sweep puts the means of the last into the context, from mid-grey on; height *
width * channels sweeps reach it, few come near. With context 0 and grey images, or layers 0, it is
the true mean. `sample` draws number after number.

Differs: one stack of square masks, so a blind spot remains; a block may see no neighbours, so that
depth and context are chosen apart.
"""

from collections.abc import Callable
from itertools import product
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from stages.core.shapes import Images, ImageShape, Nats
from stages.likelihoods.base import (
    ChooseLevels,
    Levels,
    Likelihood,
    LikelihoodOptions,
    Parameters,
)
from stages.nn.convolution import LINEAR
from stages.nn.inverse_cdf import index_from_uniform
from stages.nn.masked_convolution import MaskedConvolution, MaskedResidualBlock

__all__ = ["Autoregressive", "AutoregressiveOptions"]

# Share of the distance between levels: more than float32 errs, less than an 8-bit intensity can be
# away from a level without being on it (1/255).
_ON_A_LEVEL = 1e-3

# Backbones start with outputs of a tenth, for grey first images. Beside an image of size one z
# would go unheard, and the KL would silence it before it is learned, whatever the context.
_FROM_SMALL_START = 10.0

Logits = Float[Tensor, "batch channels levels height width"]
Emitted = Float[Tensor, "batch logits height width"]
Places = tuple[slice, slice, slice]


class AutoregressiveOptions(LikelihoodOptions):
    """Parameters of the autoregressive likelihood."""

    kind: Literal["autoregressive"]
    levels: int = Field(ge=2, le=256)
    """Intensities, evenly spaced from -1 to 1; 2: binary images, 256: 8-bit images."""
    rounding: Literal["dynamic", "nearest"]
    """How images come to the levels; nothing changes where they are there already."""
    layers: int = Field(ge=0)
    """Masked convolutions, the first and one per block; 0: no autoregression."""
    context: int = Field(ge=0)
    """Pixels seen in each direction of the past, at most `layers`; the remedy is to lower it."""
    width: int = Field(ge=8)
    """Maps of the masked layers and, with layers above 0, of the decoder's output."""
    mean_sweeps: int = Field(ge=1)
    """Sweeps of `mean`; each costs a pass through the masked layers, in training as well."""

    @property
    def discretized(self) -> bool:
        """Whether it is a true probability of 8-bit images: with all of their levels."""
        return self.levels == 256

    @property
    def draws_targets(self) -> bool:
        """Whether levels are drawn; 8-bit images are on all 256 already."""
        return self.rounding == "dynamic" and self.levels < 256

    @model_validator(mode="after")
    def _layers_reach_the_context(self) -> "AutoregressiveOptions":
        if self.context > self.layers:
            raise ValueError(
                f"context must be at most layers, each of which reaches one pixel further; "
                f"got {self.context} and {self.layers}"
            )
        return self


class Autoregressive(Likelihood):
    """A masked network over the image, told by the decoder's maps what to paint."""

    values: Float[Tensor, "levels 1 1"]

    def __init__(self, options: AutoregressiveOptions, image: ImageShape) -> None:
        super().__init__(options, image)
        self.options = options
        self.channels = image.channels
        # Softmax knows differences only: the first level's logit is 0, the others are emitted.
        self.num_logits = image.channels * (options.levels - 1)
        self.network = _MaskedNetwork(options, self.channels, self.num_logits)
        self.register_buffer(
            "values", torch.linspace(-1, 1, options.levels)[:, None, None], persistent=False
        )

    @property
    def num_parameters(self) -> int:
        """Maps for the masked network; without one, the logits themselves."""
        return self.options.width if self.options.layers else self.num_logits

    def log_prob(self, images: Images, parameters: Parameters) -> Nats:
        """log p of images on the levels, exact."""
        chosen = self._levels(images)
        logits = self._logits(images, parameters).transpose(1, 2)
        return -F.cross_entropy(logits, chosen, reduction="none").sum(dim=(1, 2, 3))

    def mean(self, parameters: Parameters) -> Images:
        """Conditional means, those of one sweep in the context of the next; see the module.

        The gradient passes through the last sweep only.
        """
        sweeps = self.options.mean_sweeps if self.options.layers else 1
        means = self._mid_grey(parameters)
        for sweep in range(sweeps):
            with torch.set_grad_enabled(torch.is_grad_enabled() and sweep == sweeps - 1):
                probabilities = F.softmax(self._logits(means, parameters), dim=2)
                means = (probabilities * self.values).sum(dim=2)
        return means

    @torch.no_grad()
    def sample(self, parameters: Parameters, generator: torch.Generator) -> Images:
        """A draw, number after number; a step computes the context of one pixel, not the image."""
        batch, _, height, width = parameters.shape
        shape = (batch, self.channels, height, width)
        uniforms = torch.rand(shape, generator=generator, device=generator.device)
        uniforms = uniforms.to(parameters.device)

        def draw(logits: Logits, places: Places) -> Levels:
            channels, rows, columns = places
            flat = logits.movedim(2, -1)
            chosen = uniforms[:, channels, rows, columns]
            return index_from_uniform(flat.flatten(0, -2), chosen.flatten()).view(chosen.shape)

        return self._number_by_number(parameters, draw)

    @torch.no_grad()
    def walk(self, parameters: Parameters, choose: ChooseLevels) -> Levels:
        """Number after number; all of them together without layers."""
        if self.options.levels != 256:
            return super().walk(parameters, choose)

        def told(logits: Logits, places: Places) -> Levels:
            probabilities = logits.movedim(2, -1).cpu().double().softmax(dim=-1)
            return choose(probabilities, places).to(parameters.device)

        return self._levels(self._number_by_number(parameters, told)).cpu()

    def _number_by_number(
        self, parameters: Parameters, choose: Callable[[Logits, Places], Levels]
    ) -> Images:
        """The image whose levels are chosen one by one, each told its logits."""
        images = self._mid_grey(parameters)
        _, channels, height, width = images.shape
        if self.options.layers == 0:
            everywhere = (slice(0, channels), slice(0, height), slice(0, width))
            return self._values(choose(self._logits(images, parameters), everywhere))
        context = self.options.context
        for row, column in product(range(height), range(width)):
            rows = slice(max(row - context, 0), row + 1)
            columns = slice(max(column - context, 0), column + context + 1)
            here = column - columns.start
            for channel in range(channels):
                logits = self._logits(images[:, :, rows, columns], parameters[:, :, rows, columns])
                place = (
                    slice(channel, channel + 1),
                    slice(row, row + 1),
                    slice(column, column + 1),
                )
                levels = choose(logits[:, place[0], :, -1:, here : here + 1], place)
                images[:, channel, row, column] = self._values(levels)[:, 0, 0, 0]
        return images

    def target(self, images: Images, generator: torch.Generator | None) -> Images:
        """Images on the levels; without a generator, `dynamic` takes the nearest too."""
        places = (images.float() + 1) / 2 * (self.options.levels - 1)
        levels = torch.floor(places + 0.5)
        if self.options.rounding == "dynamic" and generator is not None:
            uniforms = torch.rand(images.shape, generator=generator, device=generator.device)
            drawn = torch.ceil(places - uniforms.to(images.device))
            levels = torch.where((places - levels).abs() < _ON_A_LEVEL, levels, drawn)
        return levels / (self.options.levels - 1) * 2 - 1

    def _logits(self, images: Images, parameters: Parameters) -> Logits:
        emitted = self.network(images, parameters).float()
        emitted = emitted.unflatten(1, (self.channels, self.options.levels - 1))
        return F.pad(emitted, (0, 0, 0, 0, 1, 0))

    def _levels(self, images: Images) -> Levels:
        return ((images.float() + 1) / 2 * (self.options.levels - 1)).round().long()

    def _values(self, levels: Levels) -> Images:
        return self.values.flatten()[levels]

    def _mid_grey(self, parameters: Parameters) -> Images:
        batch, _, height, width = parameters.shape
        return torch.zeros(batch, self.channels, height, width, device=parameters.device)


class _MaskedNetwork(nn.Module):
    """Images and the decoder's maps to logits; no weights without layers."""

    def __init__(self, options: AutoregressiveOptions, channels: int, num_logits: int) -> None:
        super().__init__()
        self.sees: MaskedConvolution | None = None
        if options.layers == 0:
            return
        width = options.width
        # Each 3x3 convolution reaches one pixel further; beyond the context, none does.
        first, *others = (3 if layer < options.context else 1 for layer in range(options.layers))
        self.sees = MaskedConvolution(
            channels, width, first, groups=channels, strict=True, gain=LINEAR
        )
        self.blocks = nn.Sequential(
            *(MaskedResidualBlock(width, kernel, channels) for kernel in others), nn.SiLU()
        )
        # A small start: all levels are as probable at first.
        self.out = MaskedConvolution(width, num_logits, 1, groups=channels, strict=False, gain=0.1)

    def forward(self, images: Images, parameters: Parameters) -> Emitted:
        if self.sees is None:
            return parameters
        told = _FROM_SMALL_START * parameters.float()
        return self.out(self.blocks(self.sees(images) + told))
