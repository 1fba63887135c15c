"""Images by request: of some class, seed and temperature, drawn in any company.

A request names one image: the class, the seed, the place i in the sequence of that seed, and the
temperature. It is image i of `python -m pipelines sample --classes CLASS --seed SEED`, and so a
function of these four alone:

    uniforms from (seed, "image", i)  ->  latents given class  ->  pixels

Requests of one temperature share a pass of the prior, whoever asked. A pass always holds `GROUP`
rows, as in the stage `sample`, filled up with copies: matrix products of another shape may add in
another order, and an image would depend on its company in the last bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from stages.core.randomness import torch_stream
from stages.core.shapes import Labels, Pixels
from stages.sampling.draw import GROUP, uniforms_of_images
from stages.sampling.options import SamplingOptions
from stages.sampling.trained import Trained

__all__ = ["ImageServer", "Wanted"]

_DECODED = 16
"""Rows decoded in one call, as in the stage `sample`."""


@dataclass(frozen=True)
class Wanted:
    """One image that was asked for."""

    label: int
    """Its class; -1 for a line that knows none."""
    seed: int
    index: int
    """Place in the sequence of the seed, from 0."""
    temperature: float


class ImageServer:
    """Draws what is asked for.

    Args:
        trained: The line; with a judge where the options reject.
        options: All that a request does not say.

    Raises:
        ParamsError: If the options ask for what the line does not have.
    """

    def __init__(self, trained: Trained, options: SamplingOptions) -> None:
        # Its refusals are wanted too: of guidance without classes, of a variance of codes.
        sampler = trained.sampler(options)
        self.trained, self.options = trained, options
        self.classes = sampler.classes
        self._walker, self._opinion = sampler.walker, sampler.opinion

    def images(self, wanted: Sequence[Wanted]) -> UInt8[np.ndarray, "count channels height width"]:
        """The images, in the order asked.

        Raises:
            ParamsError: If the prior cannot do what the settings ask for.
        """
        shape = (len(wanted), *self.trained.first.image)
        found = np.zeros(shape, np.uint8)
        for rows in _passes(wanted):
            found[rows] = self._pass([wanted[row] for row in rows])
        return found

    def _pass(self, wanted: Sequence[Wanted]) -> UInt8[np.ndarray, "count channels height width"]:
        filled = [*wanted, *[wanted[-1]] * (GROUP - len(wanted))]
        images, judged = self._candidate(filled, 0)
        for number in range(1, self.options.rejection_tries):
            rejected = judged < self.options.rejection_threshold
            if not rejected.any():
                break
            others, opinion = self._candidate(filled, number)
            chosen = rejected & (opinion > judged)
            images = torch.where(chosen[:, None, None, None], others, images)
            judged = torch.where(chosen, opinion, judged)
        return images[: len(wanted)].cpu().numpy()

    @torch.inference_mode()
    def _candidate(
        self, wanted: Sequence[Wanted], number: int
    ) -> tuple[Pixels, Float[Tensor, " batch"]]:
        device, prior = self.trained.device, self._walker
        uniforms = [
            uniforms_of_images(each.seed, np.array([each.index]), prior.noise_shape, number)
            for each in wanted
        ]
        labels = None
        if self.classes:
            labels = torch.tensor([each.label for each in wanted], device=device)
        settings = self.options.model_copy(update={"temperature": wanted[0].temperature}).settings
        latents = prior.sample(
            labels if prior.num_classes else None,
            torch.from_numpy(np.concatenate(uniforms)).to(device),
            settings,
        )
        pieces = [slice(start, start + _DECODED) for start in range(0, len(wanted), _DECODED)]
        images = torch.cat(
            [
                self._decoded(
                    latents[rows], None if labels is None else labels[rows], list(wanted[rows])
                )
                for rows in pieces
            ]
        )
        if self._opinion is None or labels is None:
            return images, torch.full((len(wanted),), torch.inf, device=device)
        return images, self._opinion(images, labels)

    def _decoded(self, latents: Tensor, labels: Labels | None, wanted: list[Wanted]) -> Pixels:
        first, scale = self.trained.first, self.trained.second.prior.spec.scale
        if self.options.pixels == "mean":
            return first.pixels(latents, scale, labels)
        streams = [
            torch_stream(each.seed, "pixels", each.index, device=self.trained.device)
            for each in wanted
        ]
        return first.drawn_pixels(latents, scale, labels, streams)


def _passes(wanted: Sequence[Wanted]) -> Iterator[list[int]]:
    """Rows that can be drawn together."""
    by_temperature: dict[float, list[int]] = {}
    for row, each in enumerate(wanted):
        by_temperature.setdefault(each.temperature, []).append(row)
    for rows in by_temperature.values():
        for start in range(0, len(rows), GROUP):
            yield rows[start : start + GROUP]
