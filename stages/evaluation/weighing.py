"""The test split weighed: importance-weighted bounds on its likelihood, where there are any.

Images are weighed in batches of their own, each with its own stream of draws: the figures hang on
`iwae_batch_size` as on any seed, within their standard error, and on `batch_size` not at all. What
is weighed is kept batch by batch: thousands of draws take hours, and a kill costs one batch.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from stages.core.intensities import from_pixels
from stages.core.kept_arrays import read_arrays, write_arrays
from stages.core.randomness import torch_stream
from stages.core.shapes import Images, Labels
from stages.core.stage import Run
from stages.evaluation.line import Line
from stages.evaluation.observe import chunks, evenly_spaced
from stages.evaluation.options import EvaluateOptions
from stages.metrics.base import Figure, Protocol
from stages.metrics.importance import (
    ImportanceBound,
    fixed_targets,
    prior_gains,
    two_stage_log_weights,
)
from stages.nn.posteriors import family_of

__all__ = ["weigh_test"]


class _Batch(NamedTuple):
    """Some test images as the likelihood has to explain them."""

    first: int
    """Row of the first in the split, which names the batch."""
    targets: Images
    labels: Labels | None


def weigh_test(
    line: Line,
    options: EvaluateOptions,
    seed: int,
    run: Run,
    device: torch.device,
    protocol: Protocol,
) -> list[Figure]:
    """Bounds under the model's own prior and under the learned one, as far as they are asked for.

    Args:
        line: What is judged.
        options: How many images and draws.
        seed: Of targets and draws.
        run: Its stop event is obeyed.
        device: Where the line computes.
        protocol: What is common to all figures of the test split.

    Returns:
        Nothing for codes and for points: they have no importance weights.

    Raises:
        Interrupted: If the stage was asked to stop; batches that are weighed are kept.
    """
    spec, autoencoder = line.latents.spec, line.first_stage.autoencoder
    likelihood = line.first_stage.params.likelihood
    if spec.kind == "codes" or spec.deterministic:
        return []
    own = family_of(spec.posterior, spec.reference).prior_name
    looser = autoencoder.stores_mean_field
    # Where what is stored bounds less tightly, the model's own bound stands beside it in any case.
    own_draws = max(options.iwae_draws, 1 if looser else 0)
    stored = "as stored: mean-field" if looser else "as stored"
    own_q = "the model's own" if looser else "as stored"
    learned = two_stage_log_weights(autoencoder, line.second_stage.prior, spec)
    told = protocol.also(
        target="as the likelihood makes it of each image, once, from the seed",
        likelihood=likelihood.model_dump(mode="json"),
        iwae_batch_size=options.iwae_batch_size,
    )
    figures, bounds = [], {}
    for prefix, prior, q, weigh, draws in (
        ("", f"the first stage's own, {own}", own_q, autoencoder.log_weights, own_draws),
        ("two_stage_", "the second stage's", stored, learned, options.iwae_prior_draws),
    ):
        if draws == 0:
            continue
        bound = bounds[prefix] = ImportanceBound(weigh, draws)
        for batch in _batches(line, options, seed, device, f"{prefix}weights"):
            path = run.work / "weights" / f"{prefix}{batch.first:09d}.npz"
            bound.take(_costs(path, bound, batch, seed, run))
        told = told.also(reference_n=bound.images)
        how = told.also(latent_prior=prior, posterior=q)
        figures += bound.figures(prefix, line.first_stage.image, likelihood.discretized, how)
    if len(bounds) == 2 and not looser and own_draws == options.iwae_prior_draws:
        figures += prior_gains(bounds[""], bounds["two_stage_"], told)
    return figures


def _costs(
    path: Path, bound: ImportanceBound, batch: _Batch, seed: int, run: Run
) -> dict[str, torch.Tensor]:
    """Of one batch, as an earlier process has left them or as weighed now."""
    kept = read_arrays(path)
    if kept is None:
        # The same draws under either prior: the bounds differ by the priors alone.
        device = batch.targets.device
        stream = torch_stream(seed, "evaluate", "weights", batch.first, device=device)
        found = bound.weighed(batch.targets, batch.labels, stream, run.raise_if_stopped)
        kept = {name: nats.numpy() for name, nats in found.items()}
        write_arrays(path, kept)
    return {name: torch.from_numpy(nats) for name, nats in kept.items()}


def _batches(
    line: Line, options: EvaluateOptions, seed: int, device: torch.device, label: str
) -> Iterator[_Batch]:
    split = line.prepared.split("test")
    likelihood = line.first_stage.autoencoder.likelihood
    rows = evenly_spaced(len(split.images), options.iwae_images)
    for piece in chunks(rows, options.iwae_batch_size, label):
        images = from_pixels(torch.from_numpy(np.array(split.images[piece])))
        targets = fixed_targets(likelihood, images, piece.tolist(), seed).to(device)
        labels = None
        if split.labels is not None:
            labels = torch.from_numpy(np.array(split.labels[piece])).long().to(device)
        yield _Batch(int(piece[0]), targets, labels)
