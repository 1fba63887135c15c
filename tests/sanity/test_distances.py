"""What every distance must do: nothing between equal sets, and more the more images are spoilt."""

from functools import cache

import numpy as np
import pytest
import torch

from stages.metrics import feature_set
from stages.metrics.frechet import frechet_figures
from stages.metrics.memorisation import Memorisation, judge_distances
from stages.metrics.neighbours import NearestNeighbours
from tests.metrics.feature_sets import normal, pair
from tests.sanity.digits import (
    blurred,
    digits,
    figures,
    noisy,
    reference,
    repeated,
    samples,
    seen,
    unbalanced,
    without,
)

SPOIL = {
    "blur": (lambda images, labels, level: blurred(images, level), (0.4, 0.6, 0.9)),
    "noise": (lambda images, labels, level: noisy(images, level), (15, 30, 60, 100)),
    "fewer classes": (without, (1, 5, 7, 9)),
    "imbalance": (unbalanced, (5, 20)),
    "repetition": (lambda images, labels, level: repeated(images, level), (2, 5, 15)),
}


@cache
def clean() -> dict[str, float]:
    return figures(samples()[0])


@cache
def spoilt(how: str) -> list[dict[str, float]]:
    """Unspoilt, then ever more so."""
    spoil, levels = SPOIL[how]
    return [clean(), *(figures(spoil(*samples(), level)) for level in levels)]


@pytest.mark.parametrize("how", SPOIL)
@pytest.mark.parametrize("name", ["frechet", "kernel"])
def test_distances_grow(how: str, name: str) -> None:
    values = [found[name] for found in spoilt(how)]
    assert (np.diff(values) > 0).all(), values


@pytest.mark.parametrize("how", SPOIL)
@pytest.mark.parametrize("name", ["recall", "coverage"])
def test_what_is_reached_shrinks(how: str, name: str) -> None:
    values = [found[name] for found in spoilt(how)]
    assert (np.diff(values) <= 0).all() and values[-1] < 0.85 * values[0], values


@pytest.mark.parametrize("how", ["blur", "noise"])
@pytest.mark.parametrize("name", ["precision", "density"])
def test_spoilt_images_leave_the_real_ones(how: str, name: str) -> None:
    values = [found[name] for found in spoilt(how)]
    assert (np.diff(values) < 0).all() and values[-1] < 0.5 * values[0], values


@pytest.mark.parametrize("how", ["fewer classes", "imbalance", "repetition"])
def test_real_images_stay_precise_however_few_kinds_there_are(how: str) -> None:
    for found in spoilt(how):
        assert found["precision"] > 0.75 and found["density"] > 0.8


@pytest.mark.parametrize("how", ["blur", "noise", "fewer classes", "imbalance"])
def test_the_score_falls_with_sharpness_and_with_classes(how: str) -> None:
    values = [found["score"] for found in spoilt(how)]
    assert (np.diff(values) < 0).all(), values


def test_equal_sets_are_at_no_distance() -> None:
    found = figures(digits()[0][::2])
    assert found["frechet"] == pytest.approx(0, abs=1e-8)
    assert found["precision"] == found["recall"] == found["coverage"] == 1
    # Without the pairs of an image and its copy, the unbiased estimate is just below 0.
    assert -0.02 < found["kernel"] < 0


def test_known_gaussians_have_the_closed_form() -> None:
    # 3 + 0.5 N(0, I) and N(0, I) in 5 dimensions, 20,000 of each: d^2 = 5 (9 + 0.25).
    both = pair(normal(20_000, 5, seed=1, shift=3, scale=0.5), normal(20_000, 5, seed=2))
    [figure] = frechet_figures(both)
    # One standard error is 2 * 3 * sqrt(5 * (1 + 0.25) / 20,000) = 0.106 of both sets together.
    assert abs(figure.value - 46.25) < 0.35


def test_neither_order_nor_batches_change_anything(monkeypatch) -> None:
    images, _ = samples()
    turned = np.random.default_rng(4).permutation(len(images))
    monkeypatch.setattr(feature_set, "CHUNK_IMAGES", 111)
    found = figures(images[turned], of=seen(digits()[0][::2][::-1]))
    for name, value in clean().items():
        assert found[name] == pytest.approx(value, rel=1e-5, abs=1e-6), name


def test_copies_of_training_images_pass_unless_one_looks_at_the_training_images() -> None:
    # A third of the odd rows each: training images, fresh images, and the test images beside them.
    images, _ = digits()
    train, fresh, test = images[1::6], images[3::6], images[5::6]
    held = [torch.from_numpy(seen(part).features) for part in (train, test)]

    def judged(shown: np.ndarray) -> Memorisation:
        vectors = torch.from_numpy(seen(shown).features)
        found = NearestNeighbours(torch.cat([vectors, held[1]]), neighbours=1)
        found.update(held[0], torch.arange(len(train)))
        distances = found.distances[:, 0].split([len(vectors), len(held[1])])
        return judge_distances(*distances)

    def share(copied: float) -> np.ndarray:
        count = int(copied * len(train))
        return np.concatenate([train[:count], fresh[count : len(train)]])

    found = [judged(share(copied)) for copied in (0, 0.2, 0.4, 0.6)]
    ratios, shares = [one.ratio for one in found], [one.share for one in found]
    assert 0.8 < ratios[0] < 1.2 and ratios[-1] < 1e-4
    assert (np.diff(ratios) < 0).all() and (np.diff(shares) > 0).all(), (ratios, shares)
    assert [one.flagged for one in found] == [False, True, True, True]
    # No other figure sees it: copies of real images are real images.
    honest, copied = (figures(part, of=reference()) for part in (fresh, train))
    assert copied["frechet"] < 2 * honest["frechet"]
    for name in ("precision", "recall", "coverage"):
        assert copied[name] == pytest.approx(honest[name], abs=0.06)
