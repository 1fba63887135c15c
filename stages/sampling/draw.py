"""Image i of a seed, the same in whatever company it is drawn.

The uniform numbers of image i come from the stream (seed, "image", i), its class from i, and every
draw is a function of them alone. That settles image i in exact arithmetic; in floating point the
last bits of a matrix product also depend on its shape, and one code near a step of its distribution
would change the whole image. So the networks are always called on the same images together: images
64 g to 64 g + 63 (group g), the last group filled up with images nobody asked for.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int, Num, UInt8
from torch import Tensor

from stages.core.randomness import numpy_stream
from stages.core.shapes import Labels, Pixels
from stages.priors.base import Prior
from stages.sampling.options import SamplingOptions

__all__ = ["GROUP", "Decode", "Drawn", "Sampler", "uniforms_of_images"]

GROUP = 64
"""Images drawn in one call of the prior."""

_DECODED = 16
"""Images decoded in one call: full-size feature maps need far more memory than tokens."""


Decode = Callable[[Tensor, Labels | None, Int[np.ndarray, " count"]], Pixels]
"""Latents, classes and numbers of some images -> their 8-bit pixels."""


@dataclass(frozen=True)
class Drawn:
    """Images in a row."""

    images: UInt8[np.ndarray, "count channels height width"]
    latents: Num[np.ndarray, "count ..."]
    """As the prior gives them: codes, or scaled continuous latents."""
    labels: Int[np.ndarray, " count"]
    """Class of each image; -1: drawn without a class."""
    log_probability: Float[np.ndarray, " count"]
    """log p(latents given class) in nats, of the prior itself: temperature, truncation and
    guidance shape what is drawn, not what it is worth."""


class Sampler:
    """Draws any range of the images of a seed.

    Args:
        prior: In evaluation mode.
        decode: Latents as the prior gives them, their classes and their images' numbers, to 8-bit
            pixels.
        options: Seed, classes and settings.
        device: Where the prior is.
        num_classes: Classes the decoder looks at; a prior may know none itself.

    Raises:
        ParamsError: If the options ask for classes or guidance that the prior does not have, or for
            a variance that its latents do not have.
    """

    def __init__(
        self,
        prior: Prior,
        decode: Decode,
        options: SamplingOptions,
        device: torch.device,
        num_classes: int = 0,
    ) -> None:
        self.prior, self.decode, self.options, self.device = prior, decode, options, device
        options.check_latents(prior.spec.kind)
        self.classes = options.classes_for(max(prior.num_classes, num_classes))

    def draw(self, start: int, stop: int) -> Drawn:
        """Images start <= i < stop; whole groups cost no more than a part of one.

        Raises:
            ParamsError: If the prior cannot do what the settings ask for.
        """
        first = start - start % GROUP
        groups = [self._group(begin) for begin in range(first, stop, GROUP)]
        inside = slice(start - first, stop - first)
        return Drawn(
            *(
                np.concatenate([getattr(group, field) for group in groups])[inside]
                for field in ("images", "latents", "labels", "log_probability")
            )
        )

    @torch.inference_mode()
    def _group(self, begin: int) -> Drawn:
        indices = np.arange(begin, begin + GROUP)
        uniforms = uniforms_of_images(self.options.seed, indices, self.prior.noise_shape)
        labels = None
        if self.classes:
            chosen = np.array(self.classes)[indices % len(self.classes)]
            labels = torch.from_numpy(chosen).to(self.device)
        uniforms = torch.from_numpy(uniforms).to(self.device)
        known = labels if self.prior.num_classes else None
        latents = self.prior.sample(known, uniforms, self.options.settings)
        log_probability = self.prior.log_prob(latents, known)
        images = torch.cat(
            [
                self.decode(latents[rows], None if labels is None else labels[rows], indices[rows])
                for rows in (slice(start, start + _DECODED) for start in range(0, GROUP, _DECODED))
            ]
        )
        return Drawn(
            images.cpu().numpy(),
            latents.cpu().numpy(),
            np.full(GROUP, -1) if labels is None else labels.cpu().numpy(),
            log_probability.cpu().numpy(),
        )


def uniforms_of_images(
    seed: int, indices: Int[np.ndarray, " count"], noise_shape: tuple[int, int]
) -> Float[np.ndarray, "count tokens noise_dim"]:
    """Uniform numbers in (0, 1), float32, each image from its own stream."""
    numbers = np.stack(
        [
            numpy_stream(seed, "image", int(index)).random(noise_shape, dtype=np.float32)
            for index in indices
        ]
    )
    # NumPy draws multiples of 2^-24 from [0, 1): zero is moved off the edge, one never comes.
    return np.maximum(numbers, np.float32(2.0**-25))
