"""How sure a figure is: intervals over the images it was taken from, of 95 % where nobody asks.

Of a share, the exact one: all p under which neither the hits nor fewer, and neither the hits nor
more, would be rarer than half of what the level leaves (Clopper & Pearson 1934). Its coverage is
the level or more, also for shares at 0 and 1, where a normal approximation has no width. Of a
mean of many images the normal one, mean +- 1.96 s / sqrt(n).

Both speak of other test images or samples of the same model, not of another training run.
"""

from scipy.stats import binomtest, norm

__all__ = ["EXACT", "LEVEL", "NORMAL", "exact_interval", "mean_interval"]

LEVEL = 0.95
EXACT = f"{LEVEL:.0%}, exact binomial (Clopper-Pearson) over the images"
NORMAL = f"{LEVEL:.0%}, normal approximation of the mean over the images"
"""Level and method, for the protocol."""


def exact_interval(hits: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Interval of the share `hits` / `n`; n > 0, 0 < level < 1."""
    found = binomtest(hits, n).proportion_ci(confidence_level=level, method="exact")
    return float(found.low), float(found.high)


def mean_interval(total: float, squares: float, n: int) -> tuple[float, float] | None:
    """Interval of the mean of n numbers.

    Args:
        total: Their sum.
        squares: The sum of their squares.
        n: How many; of one there is no spread, and no interval.
    """
    if n < 2:
        return None
    mean = total / n
    # Rounding can leave equal numbers a hair below 0.
    variance = max(squares / n - mean * mean, 0.0) * n / (n - 1)
    half = float(norm.ppf(0.5 + LEVEL / 2)) * (variance / n) ** 0.5
    return mean - half, mean + half
