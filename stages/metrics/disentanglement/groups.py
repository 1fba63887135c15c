"""Groups of images that share the value of one factor, drawn from the images at hand.

The scores of Higgins et al. and Kim & Mnih hold one factor fixed and let all others vary. Where
every combination of the factors can be rendered, images are drawn from combinations; here they are
drawn from the rows of a split:

    a value        uniformly among those of the factor that two images at least hold
    one image      uniformly among those that hold it
    the others     uniformly among the rest of those, with replacement

Rows of a random sample of the full factorial vary in the other factors as combinations drawn
independently would; in small samples a few images of a rare value come up again and again.
"""

import numpy as np
from jaxtyping import Bool, Int64

from stages.core.errors import DataError
from stages.metrics.disentanglement.representation import Representation

__all__ = ["ACTIVE_STD", "active_latents", "images_sharing"]

ACTIVE_STD = 0.05
"""A latent of smaller standard deviation, in own units, has collapsed (Locatello et al. 2019)."""


def active_latents(representation: Representation) -> Bool[np.ndarray, " latent_dims"]:
    """Which latents vary at all; of the others only noise would be left after dividing by it."""
    return representation.latents.std(axis=0) >= ACTIVE_STD


def images_sharing(
    representation: Representation,
    fixed: Int64[np.ndarray, " groups"],
    size: int,
    random: np.random.Generator,
) -> Int64[np.ndarray, "groups size"]:
    """Rows of images that share a value of the factor `fixed`, a group each.

    Raises:
        DataError: If no two images share a value of a factor.
    """
    rows = np.empty((len(fixed), size), dtype=np.int64)
    for factor, name in enumerate(representation.names):
        values = representation.factors[:, factor]
        held = np.bincount(values)
        shared = np.flatnonzero(held >= 2)
        if len(shared) == 0:
            raise DataError(
                f"factor {name!r}: two images at least must share a value, each of the "
                f"{len(values)} has its own; leave the factor out, or look at more images"
            )
        # Images by value: those of value v stand from starts[v] on.
        ordered, starts = np.argsort(values, kind="stable"), np.cumsum(held) - held
        groups = np.flatnonzero(fixed == factor)
        value = random.choice(shared, size=len(groups))
        start, count = starts[value][:, None], held[value][:, None]
        first = random.integers(count)
        others = 1 + random.integers(count - 1, size=(len(groups), size - 1))
        places = np.concatenate([first, (first + others) % count], axis=1)
        rows[groups] = ordered[start + places]
    return rows
