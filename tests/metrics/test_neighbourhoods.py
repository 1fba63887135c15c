import numpy as np
import pytest
from scipy.stats import binom

from stages.comparing.differences import differences
from stages.core.errors import DataError
from stages.metrics import feature_set as chunks
from stages.metrics.density_coverage import density_coverage_figures
from stages.metrics.neighbourhoods import Neighbourhoods, squared_radii
from stages.metrics.precision_recall import precision_recall_figures
from tests.metrics.feature_sets import feature_set, normal, pair


def by_loops(samples, reference, closed: int, opened: int):
    """Four lists of plain numbers, from one distance after the other."""

    def distance(a, b) -> float:
        return float(np.sqrt(((a.astype(np.float64) - b.astype(np.float64)) ** 2).sum()))

    def radius(images, i, k) -> float:
        others = [distance(images[i], images[j]) for j in range(len(images)) if j != i]
        return sorted(others)[k - 1]

    x, y = samples.features, reference.features
    wide_x = [radius(x, i, closed) for i in range(len(x))]
    wide_y = [radius(y, j, closed) for j in range(len(y))]
    thin_y = [radius(y, j, opened) for j in range(len(y))]
    inside = [any(distance(a, b) <= r for b, r in zip(y, wide_y, strict=True)) for a in x]
    found = [any(distance(a, b) <= r for a, r in zip(x, wide_x, strict=True)) for b in y]
    around = [sum(distance(a, b) < r for b, r in zip(y, thin_y, strict=True)) for a in x]
    covered = [any(distance(a, b) < r for a in x) for b, r in zip(y, thin_y, strict=True)]
    return inside, found, around, covered


@pytest.mark.parametrize("cut", [2048, 5])
def test_agrees_with_loops_however_it_is_cut(monkeypatch, cut: int) -> None:
    monkeypatch.setattr(chunks, "CHUNK_IMAGES", cut)
    samples, reference = normal(17, 3, seed=1, shift=0.8, scale=0.7), normal(22, 3, seed=2)
    found = Neighbourhoods.of(samples, reference, 2, 4)
    inside, within, around, covered = by_loops(samples, reference, 2, 4)
    assert found.sample_inside.tolist() == inside and 0 < sum(inside) < 17
    assert found.reference_inside.tolist() == within and 0 < sum(within) < 22
    assert found.balls_around_sample.tolist() == around
    assert found.reference_covered.tolist() == covered and 0 < sum(covered) < 22


def test_a_set_beside_itself_far_from_zero(monkeypatch) -> None:
    # Every distance is met twice, on the rim of a ball: rounding must not decide.
    monkeypatch.setattr(chunks, "CHUNK_IMAGES", 11)
    images = normal(40, 6, seed=3, shift=1000)
    both = pair(images, images)
    figures = {f.name: f.value for f in precision_recall_figures(both)}
    figures |= {f.name: f.value for f in density_coverage_figures(both)}
    assert figures["precision_classifier"] == figures["recall_classifier"] == 1
    # k - 1 neighbours lie inside the rim of the k-th, and the image itself.
    assert figures["density_classifier"] == figures["coverage_classifier"] == 1


def test_copies_are_at_distance_zero() -> None:
    images = normal(5, 4, seed=4, shift=300).features
    radii = squared_radii(feature_set(np.concatenate([images, images])), (1, 2))
    assert (radii[0] == 0).all() and (radii[1] > 0).all()


def test_alike_sets_come_out_as_published() -> None:
    # Coverage of as many samples: a ball around k neighbours among N is missed by N others with
    # probability 2^-k; 40 repeats, three and a half standard errors.
    counts, densities, neighbours = [], [], 3
    for seed in range(40):
        found = Neighbourhoods.of(
            normal(100, 2, seed=2 * seed), normal(100, 2, seed=2 * seed + 1), 3, neighbours
        )
        counts.append(found.reference_covered.mean())
        densities.append(found.balls_around_sample.mean() / neighbours)
    for values, expected in ((counts, 1 - 2**-neighbours), (densities, 1)):
        error = np.std(values, ddof=1) / len(values) ** 0.5
        assert abs(np.mean(values) - expected) < 3.5 * error + 0.5 / 100


def test_an_interval_is_over_the_images_it_names() -> None:
    both = pair(normal(30, 2, seed=5, shift=1), normal(40, 2, seed=6))
    precision, recall = precision_recall_figures(both)
    assert "over samples" in precision.protocol.details["interval"]
    assert "over reference" in recall.protocol.details["interval"]
    for figure in (precision, recall, *density_coverage_figures(both)):
        assert figure.interval[0] <= figure.value <= figure.interval[1]
        over_reference = "over reference" in figure.protocol.details["interval"]
        assert figure.interval[0] < figure.interval[1] and figure.n == (30, 40)[over_reference]


def test_recall_of_more_samples_is_another_figure() -> None:
    reference = normal(40, 2, seed=6)
    one, other = (precision_recall_figures(pair(normal(n, 2, 5), reference))[1] for n in (30, 35))
    [unlike] = differences(one, other).unlike
    assert (unlike.name, unlike.first, unlike.second) == ("details.samples_n", 30, 35)


def test_the_interval_of_a_share_of_one_reaches_as_far_down_as_it_must() -> None:
    images = normal(40, 6, seed=3)
    for figure in precision_recall_figures(pair(images, images, level=0.9)):
        # Of shares below this, forty hits of forty have less than 1 chance in 20.
        assert (figure.value, *figure.interval) == (1, pytest.approx(0.05 ** (1 / 40)), 1)
        assert "Clopper-Pearson" in figure.protocol.details["interval"]
        assert figure.protocol.details["interval_level"] == 0.9
    for figure in precision_recall_figures(pair(images, images, resamples=0)):
        assert figure.interval is None


def test_intervals_hold_a_precision_near_one_as_often_as_they_say() -> None:
    reference, draws = normal(100, 2, seed=1), 150
    [truth, _] = precision_recall_figures(pair(normal(4000, 2, seed=2, scale=0.7), reference))
    assert 0.98 < truth.value < 0.995
    held = 0
    for seed in range(draws):
        samples = normal(60, 2, seed=10 + seed, scale=0.7)
        low, high = precision_recall_figures(pair(samples, reference))[0].interval
        held += low <= truth.value <= high
    # The middle of draws with replacement held it in 107: it is a point where all are inside.
    assert held >= binom.ppf(0.001, draws, 0.95)


def test_more_neighbours_than_images_are_refused() -> None:
    with pytest.raises(DataError, match="4 images and 5 neighbours"):
        Neighbourhoods.of(normal(9, 2, seed=0), normal(4, 2, seed=1), 3, 5)
