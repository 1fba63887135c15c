"""Kernel distance between two sets of images: the maximum mean discrepancy with a cubic kernel.

    k(x, y) = (x'y / dim + 1)^3
    MMD^2   = mean_{i != j} k(x_i, x_j) + mean_{i != j} k(y_i, y_j) - 2 mean_{i, j} k(x_i, y_j)

KID of Binkowski et al. 2018 (arXiv:1801.01401), Sec. 4; the estimator is Eq. 3 (MMD_u^2) of Gretton
et al. 2012. Without bias at any number of images, so it can be below 0; of few images, or of one
class, trust it before a Frechet distance.

Its variance, to both orders (Hoeffding 1948), as first order alone says 0 for sets that are alike:

    4/N Var a + 4/M Var b + 2/(N(N-1)) s_xx + 2/(M(M-1)) s_yy + 4/(NM) s_xy

a(x) = E k(x, x') - E k(x, y) and b(y) likewise are what single images say, and s are the
variances of what is left in pairs. (For sets that are alike it comes out up to half too large.)
`standard_error` is its root; the interval is the normal one of another draw of samples against the
same reference: the terms with x alone, given y.

Differs: published values are means over 100 random subsets of 1000 images, which costs as much as
all pairs of 10,000 and is noisier. Here all pairs are taken, or (`kernel_block`) disjoint random
blocks, one of each set at a time, whose spread gives interval and standard error (over both sets).

Memory: one block of chunk x chunk pairs in float64, and a few numbers per image.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Float64
from torch import Tensor

from stages.core.errors import DataError
from stages.core.randomness import permutation
from stages.metrics.base import Figure
from stages.metrics.feature_set import FeatureSet
from stages.metrics.pair import LEAST_IMAGES, Pair

__all__ = ["KernelDistance", "kernel_distance", "kernel_figures"]

STRIP = 256
"""Images in a strip: a set is held against itself a strip at a time, from the diagonal on."""


@dataclass(frozen=True)
class KernelDistance:
    """Unbiased estimate of MMD^2 and of its variance."""

    value: float
    variance: float
    """Over draws of both sets."""
    variance_of_samples: float
    """Over draws of the samples, for this reference."""


@dataclass(frozen=True)
class _Within:
    """What the pairs of one set say."""

    rows: Float64[np.ndarray, " images"]
    """Mean kernel of each image with the others."""
    mean: float
    paired: float
    """Variance left in pairs."""


@dataclass(frozen=True)
class _Across:
    """What the pairs of two sets say."""

    rows: Float64[np.ndarray, " samples"]
    columns: Float64[np.ndarray, " references"]
    mean: float
    paired: float


def kernel_figures(pair: Pair) -> list[Figure]:
    """The kernel distance of the samples from the reference, its standard error and interval."""
    block = pair.options.kernel_block
    name = pair.name("kernel")
    if block:
        value, error = _over_blocks(pair, block)
        around, pairs, over = error, f"disjoint random blocks of {block}", "both sets"
    else:
        found = kernel_distance(pair.samples, pair.reference)
        value, error, around = (
            found.value,
            found.variance**0.5,
            found.variance_of_samples**0.5,
        )
        pairs, over = "all", "samples, reference fixed"
    how = pair.protocol.also(
        kernel="(x'y / dim + 1)^3",
        estimator="unbiased",
        pairs=pairs,
        found={**pair.protocol.found, "standard_error": error},
    )
    how = how.also(
        interval=f"normal, from the standard error over {over}", interval_level=pair.options.level
    )
    reach = NormalDist().inv_cdf((1 + pair.options.level) / 2) * around
    interval = (value - reach, value + reach)
    return [
        Figure(name, value, "squared mean discrepancy", "lower", len(pair.samples), how, interval)
    ]


def kernel_distance(samples: FeatureSet, reference: FeatureSet) -> KernelDistance:
    """MMD^2 over all pairs.

    Raises:
        DataError: If a set has fewer than four images.
    """
    for what, images in (("samples", samples), ("the reference", reference)):
        if len(images) < LEAST_IMAGES:
            raise DataError(
                f"A kernel distance needs at least {LEAST_IMAGES} images of each set; {what} came "
                f"to {len(images)}. Draw more samples (sampling.count), or give larger splits."
            )
    n, m = len(samples), len(reference)
    of_samples, of_reference = (one.keep("kernel", _within) for one in (samples, reference))
    across = _across(samples, reference)
    spread = np.var(of_samples.rows - across.rows, ddof=1) - of_samples.paired / (n - 1)
    spread_reference = np.var(of_reference.rows - across.columns, ddof=1)
    spread_reference -= of_reference.paired / (m - 1) + across.paired / n
    pairs = 2 / (n * (n - 1)) * of_samples.paired
    pairs_reference = 2 / (m * (m - 1)) * of_reference.paired
    # Of alike sets this part is 0 and comes out on either side of it: what is cut off makes the
    # variance too large rather than negative, less so the more images there are.
    single = max(4 / n * (spread - across.paired / m) + 4 / m * spread_reference, 0)
    return KernelDistance(
        value=of_samples.mean + of_reference.mean - 2 * across.mean,
        variance=float(single + pairs + pairs_reference + 4 / (n * m) * across.paired),
        variance_of_samples=float(4 / n * max(spread, 0) + pairs),
    )


def _over_blocks(pair: Pair, block: int) -> tuple[float, float]:
    """Mean over blocks and its standard error."""
    count = min(len(pair.samples), len(pair.reference)) // block
    if count < 2:
        raise DataError(
            f"There must be at least two blocks of each set; there are {len(pair.samples)} samples "
            f"and {len(pair.reference)} reference images for blocks of {block}. Lower "
            "`kernel_block`, or set it to 0 for all pairs."
        )
    # In random order: images often come sorted by class.
    orders = [
        permutation(len(images), pair.seed, "kernel blocks", what)
        for what, images in (("samples", pair.samples), ("reference", pair.reference))
    ]
    values = []
    for start in range(0, count * block, block):
        first, second = (np.sort(order[start : start + block]) for order in orders)
        values.append(kernel_distance(pair.samples.rows(first), pair.reference.rows(second)).value)
    return float(np.mean(values)), float(np.std(values, ddof=1) / count**0.5)


def _within(images: FeatureSet) -> _Within:
    count = len(images)
    rows, squares = torch.zeros(count, dtype=torch.float64), 0.0
    for row, column, values, own in _strips(images):
        rows[row] += values.sum(dim=1)
        others = values[:, own:]
        rows[column][own:] += others.sum(dim=0)
        squares += values.square().sum().item() + others.square().sum().item()
    means = (rows / (count - 1)).numpy()
    mean = float(means.mean())
    over_pairs = squares / (count * (count - 1)) - mean**2
    paired = (over_pairs - 2 * np.var(means, ddof=1)) / (1 - 2 / (count - 1))
    return _Within(means, mean, float(max(paired, 0)))


def _strips(
    images: FeatureSet,
) -> Iterator[tuple[slice, slice, Float64[Tensor, "rows columns"], int]]:
    """Kernels of a set with itself, each pair of images once but for squares on the diagonal.

    Yields:
        Rows, columns, their kernels, and how many leading columns are the rows themselves: there
        both orders of a pair are told, and the kernel of an image with itself is 0.
    """
    for row, first in images.blocks():
        for start in range(0, len(first), STRIP):
            strip = first[start : start + STRIP]
            at = row.start + start
            values = _kernel(strip, first[start:])
            values[:, : len(strip)].fill_diagonal_(0)
            yield slice(at, at + len(strip)), slice(at, row.stop), values, len(strip)
        for column, second in images.blocks():
            if column.start > row.start:
                yield row, column, _kernel(first, second), 0


def _across(samples: FeatureSet, reference: FeatureSet) -> _Across:
    n, m = len(samples), len(reference)
    rows, columns = (torch.zeros(count, dtype=torch.float64) for count in (n, m))
    squares = 0.0
    for row, first in samples.blocks():
        for column, second in reference.blocks():
            values = _kernel(first, second)
            rows[row] += values.sum(dim=1)
            columns[column] += values.sum(dim=0)
            squares += values.square().sum().item()
    of_rows, of_columns = (rows / m).numpy(), (columns / n).numpy()
    mean = float(of_rows.mean())
    left = squares / (n * m) - mean**2 - np.var(of_rows, ddof=1) - np.var(of_columns, ddof=1)
    return _Across(of_rows, of_columns, mean, float(max(left / (1 - 1 / n - 1 / m), 0)))


def _kernel(
    first: Float64[Tensor, "rows dim"], second: Float64[Tensor, "columns dim"]
) -> Float64[Tensor, "rows columns"]:
    base = (first @ second.T).div_(first.shape[1]).add_(1)
    return base.square().mul_(base)
