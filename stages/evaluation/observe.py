"""The test split as the trained line sees it, batch by batch.

Every image is rebuilt from what is stored of it (codes, or the mean of its posterior), and its
latents are judged by the prior. Where there is a posterior, one draw of each image is taken from a
stream of its own, so that draws depend neither on the batch size nor on which images are looked at.
Own units are computed in float64: the noise of a nearly deterministic posterior would drown in
float32.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from stages.assembly.first_stage import FirstStage
from stages.core.intensities import from_pixels
from stages.core.progress import progress
from stages.core.randomness import torch_stream
from stages.core.shapes import Labels, Nats, Pixels
from stages.evaluation.line import Line
from stages.metrics.base import Observation
from stages.metrics.likelihood import own_units
from stages.nn.posteriors import FactorizedPosterior
from stages.priors.base import Prior
from stages.stores.latents import LatentBatch

__all__ = ["chunks", "evenly_spaced", "observe", "observe_test"]


def evenly_spaced(count: int, at_most: int) -> np.ndarray:
    """At most so many of `count` rows, evenly spaced and ascending; 0: all. int64."""
    if at_most == 0 or at_most >= count:
        return np.arange(count)
    return np.arange(at_most) * count // at_most


def chunks(rows: np.ndarray, size: int, label: str) -> Iterator[np.ndarray]:
    """Consecutive pieces of `rows`, with a progress bar named `label`."""
    with progress(len(rows), 0, "image", label) as bar:
        for start in range(0, len(rows), size):
            piece = rows[start : start + size]
            yield piece
            bar.advance(len(piece))


def observe_test(
    line: Line, rows: np.ndarray, batch_size: int, seed: int, device: torch.device
) -> Iterator[tuple[Observation, Labels | None]]:
    """Look at rows of the test split.

    Args:
        line: What is judged.
        rows: Rows of the latents' test split, which holds each image once.
        batch_size: Rows per piece.
        seed: Of the posterior draws.
        device: Where the line computes; what is yielded lies on the CPU.
    """
    images, latents = line.prepared.split("test").images, line.latents.split("test")
    for piece in chunks(rows, batch_size, "test split"):
        pixels = torch.from_numpy(np.array(images[latents.index[piece]]))
        stored = latents.batch(piece)
        streams = [torch_stream(seed, "evaluate", "posterior", int(row)) for row in piece]
        with torch.inference_mode():
            seen = observe(
                line.first_stage, line.second_stage.prior, pixels, stored, streams, device
            )
            yield seen, stored.labels


def observe(
    first: FirstStage,
    prior: Prior,
    pixels: Pixels,
    stored: LatentBatch,
    streams: list[torch.Generator],
    device: torch.device,
) -> Observation:
    """What the two stages make of some images.

    Args:
        first: The autoencoder.
        prior: Over its latents as they are stored.
        pixels: The images.
        stored: What is stored of them, or would be.
        streams: Of the draw of each posterior.
        device: Where the stages compute; the result lies on the CPU.
    """
    spec = prior.spec
    labels = None if stored.labels is None else stored.labels.to(device)
    if stored.codes is not None:
        latents = posterior = None
        point = draw = stored.codes.to(device)
    else:
        assert stored.mean is not None
        posterior = stored.posterior
        points = stored.mean.double() / spec.scale
        latents = points if posterior is None else _draws(posterior, streams)
        point = stored.mean.to(device)
        draw = (latents * spec.scale).float().to(device)
    return Observation(
        images=pixels,
        reconstructions=first.pixels(point, spec.scale, labels).cpu(),
        log_prior=own_units(_log_prior(prior, draw, labels), spec),
        distortion=_distortion(first, pixels.to(device), draw, spec.scale, labels),
        codes=stored.codes,
        latents=latents,
        posterior=posterior,
    )


def _draws(posterior: FactorizedPosterior, streams: list[torch.Generator]) -> Tensor:
    rows = zip(posterior.mean.split(1), posterior.log_variance.split(1), streams, strict=True)
    return torch.cat(
        [
            replace(posterior, mean=mean, log_variance=log_variance).rsample(stream)
            for mean, log_variance, stream in rows
        ]
    )


def _log_prior(prior: Prior, draw: Tensor, labels: Labels | None) -> Nats:
    conditioned = labels is not None and prior.num_classes > 0
    return prior.log_prob(draw, labels if conditioned else None).cpu()


def _distortion(
    first: FirstStage, pixels: Pixels, draw: Tensor, scale: float, labels: Labels | None
) -> Nats:
    likelihood = first.autoencoder.likelihood
    parameters = first.parameters(draw, scale, labels)
    target = likelihood.target(from_pixels(pixels), None)
    return -likelihood.log_prob(target, parameters).cpu()
