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

Where the sets are paired, y_i being the image that x_i was made of, k(x_i, y_i) is a kernel of two
images that belong together and would pull the distance down, below 0 where they are equal. Left
out, what remains is (Gretton et al. 2012, Lemma 6, Eq. 4) the mean over i != j of

    h(i, j) = k(x_i, x_j) + k(y_i, y_j) - k(x_i, y_j) - k(y_i, x_j)

again without bias, of 0 for perfect reconstructions; its variance over draws of pairs is that of
one set of pairs under the kernel h, and the interval is of other pairs.

Differs: published values are means over 100 random subsets of 1000 images, which costs as much as
all pairs of 10,000 and is noisier. Here all pairs are taken, or (`kernel_block`) disjoint random
blocks, one of each set at a time, whose spread gives interval and standard error (over both sets).
Images that fill no block are left out, and not counted.

Memory: one block of chunk x chunk pairs in float64, and a few numbers per image.
"""

from collections.abc import Callable, Iterator
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

Blocks = Callable[[], Iterator[tuple[slice, Float64[Tensor, "chunk numbers"]]]]
"""Gives a set piece by piece, each piece with its rows, as often as it is asked."""
Kernel = Callable[
    [Float64[Tensor, "rows numbers"], Float64[Tensor, "columns numbers"]],
    Float64[Tensor, "rows columns"],
]


@dataclass(frozen=True)
class KernelDistance:
    """Unbiased estimate of MMD^2 and of its variance."""

    value: float
    variance: float
    """Over draws of both sets, or of pairs."""
    variance_of_samples: float
    """Over draws of the samples, for this reference; where sets are paired, of pairs."""


@dataclass(frozen=True)
class _Within:
    """What the images of one set say two by two."""

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
    """The kernel distance of the samples from the reference, its standard error and interval.

    Raises:
        DataError: If a set is too small.
    """
    block, n, m = pair.options.kernel_block, len(pair.samples), len(pair.reference)
    if block:
        value, error, n = _over_blocks(pair, block)
        around, m = error, n
        pairs, over = f"disjoint random blocks of {block}", "both sets"
    else:
        found = kernel_distance(pair.samples, pair.reference, paired=pair.paired)
        value, error = found.value, found.variance**0.5
        around = found.variance_of_samples**0.5
        pairs, over = "all", "samples, reference fixed"
    if pair.paired:
        pairs, over = f"{pairs}, but none of an image with what was made of it", "pairs"
    how = pair.protocol.also(
        reference_n=m,
        kernel="(x'y / dim + 1)^3",
        estimator="unbiased",
        pairs=pairs,
        found={**pair.protocol.found, "standard_error": error},
        interval=f"normal, from the standard error over {over}",
        interval_level=pair.options.level,
    )
    reach = NormalDist().inv_cdf((1 + pair.options.level) / 2) * around
    interval = (value - reach, value + reach)
    unit = "squared mean discrepancy"
    return [Figure(pair.name("kernel"), value, unit, "lower", n, how, interval)]


def kernel_distance(
    samples: FeatureSet, reference: FeatureSet, paired: bool = False
) -> KernelDistance:
    """MMD^2 over all pairs.

    Args:
        samples: One set.
        reference: The other.
        paired: Whether image i of the one was made of image i of the other.

    Raises:
        DataError: If a set has fewer than four images.
    """
    for what, images in (("samples", samples), ("the reference", reference)):
        if len(images) < LEAST_IMAGES:
            raise DataError(
                f"A kernel distance needs at least {LEAST_IMAGES} images of each set; {what} came "
                f"to {len(images)}. Draw more samples (sampling.count), or give larger splits."
            )
    return (_paired if paired else _unpaired)(samples, reference)


def _unpaired(samples: FeatureSet, reference: FeatureSet) -> KernelDistance:
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


def _paired(samples: FeatureSet, reference: FeatureSet) -> KernelDistance:
    assert len(samples) == len(reference), "paired sets have as many images"
    n = len(samples)

    def blocks() -> Iterator[tuple[slice, Float64[Tensor, "chunk both"]]]:
        for (row, first), (_, second) in zip(samples.blocks(), reference.blocks(), strict=True):
            yield row, torch.cat([first, second], dim=1)

    found = _two_by_two(n, blocks, _kernel_of_pairs)
    single = max(np.var(found.rows, ddof=1) - found.paired / (n - 1), 0)
    variance = float(4 / n * single + 2 / (n * (n - 1)) * found.paired)
    return KernelDistance(found.mean, variance, variance)


def _over_blocks(pair: Pair, block: int) -> tuple[float, float, int]:
    """Mean over blocks, its standard error, and how many images of each set stand in blocks."""
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
    if pair.paired:
        orders[1] = orders[0]
    values = []
    for start in range(0, count * block, block):
        first, second = (np.sort(order[start : start + block]) for order in orders)
        sets = pair.samples.rows(first), pair.reference.rows(second)
        values.append(kernel_distance(*sets, paired=pair.paired).value)
    return float(np.mean(values)), float(np.std(values, ddof=1) / count**0.5), count * block


def _within(images: FeatureSet) -> _Within:
    return _two_by_two(len(images), images.blocks, _kernel)


def _two_by_two(count: int, blocks: Blocks, kernel: Kernel) -> _Within:
    """Kernels of all images of a set with all others."""
    rows, squares = torch.zeros(count, dtype=torch.float64), 0.0
    for row, column, values, own in _strips(blocks, kernel):
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
    blocks: Blocks, kernel: Kernel
) -> Iterator[tuple[slice, slice, Float64[Tensor, "rows columns"], int]]:
    """Kernels of a set with itself, each pair of images once but for squares on the diagonal.

    Yields:
        Rows, columns, their kernels, and how many leading columns are the rows themselves: there
        both orders of a pair are told, and the kernel of an image with itself is 0.
    """
    for row, first in blocks():
        for start in range(0, len(first), STRIP):
            strip = first[start : start + STRIP]
            at = row.start + start
            values = kernel(strip, first[start:])
            values[:, : len(strip)].fill_diagonal_(0)
            yield slice(at, at + len(strip)), slice(at, row.stop), values, len(strip)
        for column, second in blocks():
            if column.start > row.start:
                yield row, column, kernel(first, second), 0


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


def _kernel_of_pairs(
    first: Float64[Tensor, "rows both"], second: Float64[Tensor, "columns both"]
) -> Float64[Tensor, "rows columns"]:
    """h; a vector holds both images of a pair."""
    (x, y), (other_x, other_y) = first.chunk(2, dim=1), second.chunk(2, dim=1)
    values = _kernel(x, other_x).add_(_kernel(y, other_y))
    return values.sub_(_kernel(x, other_y)).sub_(_kernel(y, other_x))
