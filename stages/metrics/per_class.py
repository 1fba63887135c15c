"""Each class for itself: distances of the samples of a class from the real images of that class.

A good distance overall hides a class that is missing or wrong. But a class has few images, and a
Frechet distance of N images is too large by about 1/N; with N below the number of dimensions both
covariances are singular and most of the distance is that bias. So beside each stand the numbers of
images, whether one of them is below the dimensions (`singular`), and the floor: training images of
the class, as many as there are samples of it where they suffice, against the same reference. Only
what exceeds the floor says something about the samples. The kernel distance has no such bias; for
few images trust it.
"""

import pandas as pd

from stages.core.randomness import permutation
from stages.metrics.feature_set import FeatureSet
from stages.metrics.frechet import gaussian_distance
from stages.metrics.kernel import kernel_distance

__all__ = ["class_distances"]

_FEW = 4
"""Images of a class below which nothing is said about it."""


def class_distances(
    samples: FeatureSet,
    reference: FeatureSet,
    train: FeatureSet | None,
    num_classes: int,
    seed: int,
) -> pd.DataFrame:
    """One row per class: `label`, numbers of images, distances, floors, `singular`.

    Args:
        samples: Labels are the classes asked for.
        reference: Real images with their classes.
        train: Other real images with their classes, for the floor; None: no floor.
        num_classes: Rows of the table.
        seed: Of the choice of training images where there are more than samples.

    Returns:
        Distances are NaN where a set has fewer than four images of the class.
    """
    rows = []
    for label in range(num_classes):
        real, drawn = reference.of_class(label), samples.of_class(label)
        floor = None if train is None else train.of_class(label)
        if floor is not None and drawn is not None and len(floor) > len(drawn):
            order = permutation(len(floor), seed, "class floor", label)
            floor = floor.rows(order[: len(drawn)])
        counts = [0 if images is None else len(images) for images in (drawn, real, floor)]
        frechet, kernel = _distances(drawn, real)
        frechet_floor, kernel_floor = _distances(floor, real)
        rows.append(
            {
                "label": label,
                **dict(zip(("samples_n", "reference_n", "floor_n"), counts, strict=True)),
                "frechet": frechet,
                "frechet_floor": frechet_floor,
                "kernel": kernel,
                "kernel_floor": kernel_floor,
                "singular": min(counts[:2]) <= reference.dim,
            }
        )
    return pd.DataFrame(rows)


def _distances(first: FeatureSet | None, second: FeatureSet | None) -> tuple[float, float]:
    if first is None or second is None or min(len(first), len(second)) < _FEW:
        return float("nan"), float("nan")
    return (
        gaussian_distance(first.gaussian, second.gaussian),
        kernel_distance(first, second).value,
    )
