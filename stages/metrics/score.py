"""Inception score: is each sample clearly of some class, and are all classes there?

    score = exp( mean_x KL(p(class given x) || mean_x p(class given x)) )

Salimans et al. 2016 (arXiv:1606.03498), Sec. 4: between 1 and the number of classes. It never looks
at a real image, so copies and one perfect image per class score best; read it beside the others.

Published are the mean over ten splits, in order, and their standard deviation; both are `found`
beside the value. The value itself is over all samples: a split sees fewer images, so its mean over
classes is noisier and its score lower. To first order in the images' weights the logarithm of the
score is the mean of their KL, so the interval is the bootstrap of that mean, raised.

Differs: only in the network Inception is it called the Inception score.
"""

import math

import numpy as np
import torch
from jaxtyping import Float32, Float64

from stages.metrics.base import Figure
from stages.metrics.pair import Pair

__all__ = ["divergences", "score_figures"]


def score_figures(pair: Pair) -> list[Figure]:
    """The score of the samples; none where the network knows no classes."""
    logits = pair.samples.logits
    if logits is None:
        return []
    name, splits = pair.name("score"), pair.options.score_splits
    each = divergences(logits, pair.samples.chunk)
    how = pair.protocol.also(splits=splits, classes=logits.shape[1])
    if len(logits) >= splits:
        parts = [divergences(part, pair.samples.chunk) for part in np.array_split(logits, splits)]
        scores = np.exp([part.mean() for part in parts])
        found = {"mean_of_splits": float(scores.mean()), "deviation_of_splits": float(scores.std())}
        how = how.also(found={**how.found, **found})
    value, interval = math.exp(each.mean()), None
    if pair.options.resamples:
        low, high = pair.interval_of_mean(each, name)
        interval = (math.exp(low), math.exp(high))
        how = pair.with_interval(
            how, "percentile bootstrap over samples; log score to first order in weights"
        )
    return [Figure(name, value, "classes", "higher", len(logits), how, interval)]


def divergences(
    logits: Float32[np.ndarray, "images classes"], chunk: int
) -> Float64[np.ndarray, " images"]:
    """KL of each image's classes from the classes of all, in nats."""

    def log_shares(start: int) -> torch.Tensor:
        part = torch.from_numpy(np.array(logits[start : start + chunk]))
        return part.double().log_softmax(dim=1)

    starts = range(0, len(logits), chunk)
    overall = sum(log_shares(start).exp().sum(dim=0) for start in starts) / len(logits)
    # A class nobody shows: its share of every image is 0, and 0 log 0 is 0.
    log_overall = overall.clamp_min(torch.finfo(torch.float64).tiny).log()
    found = [
        (shares.exp() * (shares - log_overall)).sum(dim=1) for shares in map(log_shares, starts)
    ]
    return torch.cat(found).numpy()
