"""Image i of a seed, the same in whatever company it is drawn.

The uniform numbers of image i come from the stream (seed, "image", i), its class from i, and every
draw is a function of them alone. That settles image i in exact arithmetic; in floating point the
last bits of a matrix product also depend on its shape, and one code near a step of its distribution
would change the whole image. So the networks are always called on the same images together: images
64 g to 64 g + 63 (group g), the last group filled up with images nobody asked for.

Rejection by a judge (VQ-VAE-2: Razavi et al. 2019, arXiv:1906.00446, section 3.4; RQ-Transformer:
Lee et al. 2022, arXiv:2203.01941, table 2): image i is the first of its own candidates, drawn from
the streams (seed, "image", i), (seed, "image", i, "candidate", 1), ..., whose class the judge finds
probable enough, or the best of them. Differs: there the best share of all images of a class is
kept; here each image has candidates of its own, so that it is settled by (seed, i) still.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Num, UInt8
from torch import Tensor

from stages.core.randomness import numpy_stream
from stages.core.shapes import Labels, Pixels
from stages.nn.cuda_graph import Replayed
from stages.nn.stepping import with_steps
from stages.priors.base import Prior
from stages.sampling.options import SamplingOptions

__all__ = ["GROUP", "Decode", "Drawn", "Opinion", "Sampler", "concatenated", "uniforms_of_images"]

GROUP = 64
"""Images drawn in one call of the prior."""

_DECODED = 16
"""Images decoded in one call: full-size feature maps need far more memory than tokens."""


Decode = Callable[[Tensor, Labels | None, Int[np.ndarray, " count"]], Pixels]
"""Latents, classes and numbers of some images -> their 8-bit pixels."""

Opinion = Callable[[Pixels, Labels], Float[Tensor, " count"]]
"""Pixels and classes of some images -> the probability that a judge gives to the class."""


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
    candidate: Int[np.ndarray, " count"]
    """Which of its candidates each image is, from 0; 0 where none is rejected."""
    judged: Float[np.ndarray, " count"]
    """Probability that the judge gives to its class; NaN where there is no judge."""

    def better_of(self, other: "Drawn", chosen: Bool[np.ndarray, " count"]) -> "Drawn":
        """The other's images where chosen."""
        mine, theirs = vars(self), vars(other)
        return Drawn(
            **{
                name: np.where(
                    chosen.reshape(-1, *[1] * (mine[name].ndim - 1)), theirs[name], mine[name]
                )
                for name in mine
            }
        )


class Sampler:
    """Draws any range of the images of a seed.

    Attributes:
        walker: Draws for the prior, whose log-probabilities are its own: in steps as the options
            say.

    Args:
        prior: In evaluation mode.
        decode: Latents as the prior gives them, their classes and their images' numbers, to 8-bit
            pixels.
        options: Seed, classes and settings.
        device: Where the prior is.
        num_classes: Classes the decoder looks at; a prior may know none itself.
        opinion: Of the judge; needed where the options reject.

    Raises:
        ParamsError: If the options ask for classes, guidance or rejection that the prior does not
            have, or for a variance that its latents do not have, or to compile and there is no
            compiler.
    """

    def __init__(
        self,
        prior: Prior,
        decode: Decode,
        options: SamplingOptions,
        device: torch.device,
        num_classes: int = 0,
        opinion: Opinion | None = None,
    ) -> None:
        self.prior, self.decode, self.options, self.device = prior, decode, options, device
        self.opinion = opinion
        options.check_latents(prior.spec.kind)
        self.classes = options.classes_for(max(prior.num_classes, num_classes))
        assert opinion is not None or not options.rejects
        self.walker = with_steps(prior, options.steps, device)
        # Groups are all of one size, so that on a GPU one graph does for all but the first.
        self._walk = Replayed(self._sample)

    def draw(self, start: int, stop: int) -> Drawn:
        """Images start <= i < stop; whole groups cost no more than a part of one.

        Raises:
            ParamsError: If the prior cannot do what the settings ask for.
        """
        first = start - start % GROUP
        groups = [self._group(begin) for begin in range(first, stop, GROUP)]
        drawn = concatenated(groups)
        inside = slice(start - first, stop - first)
        return Drawn(**{name: values[inside] for name, values in vars(drawn).items()})

    def _group(self, begin: int) -> Drawn:
        indices = np.arange(begin, begin + GROUP)
        kept = self._candidate(indices, 0)
        for number in range(1, self.options.rejection_tries):
            rejected = kept.judged < self.options.rejection_threshold
            if not rejected.any():
                break
            other = self._candidate(indices, number)
            kept = kept.better_of(other, rejected & (other.judged > kept.judged))
        return kept

    @torch.inference_mode()
    def _candidate(self, indices: Int[np.ndarray, " count"], number: int) -> Drawn:
        uniforms = uniforms_of_images(self.options.seed, indices, self.prior.noise_shape, number)
        labels = None
        if self.classes:
            chosen = np.array(self.classes)[indices % len(self.classes)]
            labels = torch.from_numpy(chosen).to(self.device)
        uniforms = torch.from_numpy(uniforms).to(self.device)
        known = labels if self.prior.num_classes else None
        latents = self._walk(known, uniforms)
        log_probability = self.prior.log_prob(latents, known)
        images = self._decoded(latents, labels, indices)
        judged = torch.full((len(indices),), torch.nan)
        if self.options.rejects:
            assert self.opinion is not None and labels is not None
            judged = self.opinion(images, labels)
        return Drawn(
            images.cpu().numpy(),
            latents.cpu().numpy(),
            np.full(len(indices), -1) if labels is None else labels.cpu().numpy(),
            log_probability.cpu().numpy(),
            np.full(len(indices), number),
            judged.cpu().numpy(),
        )

    def _sample(self, labels: Labels | None, uniforms: Tensor) -> Tensor:
        return self.walker.sample(labels, uniforms, self.options.settings)

    def _decoded(
        self, latents: Tensor, labels: Labels | None, indices: Int[np.ndarray, " count"]
    ) -> Pixels:
        pieces = (slice(start, start + _DECODED) for start in range(0, len(indices), _DECODED))
        return torch.cat(
            [
                self.decode(latents[rows], None if labels is None else labels[rows], indices[rows])
                for rows in pieces
            ]
        )


def concatenated(parts: Sequence[Drawn]) -> Drawn:
    """Images one after another."""
    return Drawn(
        **{name: np.concatenate([getattr(part, name) for part in parts]) for name in vars(parts[0])}
    )


def uniforms_of_images(
    seed: int,
    indices: Int[np.ndarray, " count"],
    noise_shape: tuple[int, int],
    candidate: int = 0,
) -> Float[np.ndarray, "count tokens noise_dim"]:
    """Uniform numbers in (0, 1), float32, each image (and candidate of it) from its own stream."""
    further = ("candidate", candidate) if candidate else ()
    streams = (numpy_stream(seed, "image", int(index), *further) for index in indices)
    numbers = np.stack([stream.random(noise_shape, dtype=np.float32) for stream in streams])
    # NumPy draws multiples of 2^-24 from [0, 1): zero is moved off the edge, one never comes.
    return np.maximum(numbers, np.float32(2.0**-25))
