import numpy as np
import pytest

from stages.core.errors import DataError, ParamsError
from stages.core.sections import validate
from stages.metrics.frechet import gaussian_distance
from stages.metrics.frechet_infinity import distances_over_n, frechet_infinity_figures
from stages.metrics.pair import DistanceOptions
from tests.metrics.feature_sets import OPTIONS, normal, pair


def test_every_point_is_the_distance_of_that_many_samples() -> None:
    samples, reference = normal(40, 6, seed=1), normal(50, 6, seed=2).gaussian
    order = np.random.default_rng(0).permutation(40)
    # The first is below the dimensions, the others above.
    found = distances_over_n(samples, reference, order, [4, 9, 40])
    expected = [gaussian_distance(samples.rows(order[:n]).gaussian, reference) for n in (4, 9, 40)]
    np.testing.assert_allclose(found, expected, rtol=1e-7)


def test_it_removes_the_bias_of_the_samples() -> None:
    # A reference so large that its own part is small; the truth is dim * shift^2, over 12 draws.
    dim, shift = 8, 0.3
    reference = normal(20_000, dim, seed=0)
    plain, carried = [], []
    for seed in range(1, 13):
        samples = normal(400, dim, seed=seed, shift=shift)
        plain.append(gaussian_distance(samples.gaussian, reference.gaussian))
        [figure] = frechet_infinity_figures(pair(samples, reference, infinity_points=8))
        carried.append(figure.value)
        assert figure.protocol.found["slope"] > 0 and figure.n == 400
    truth = dim * shift**2
    error = np.std(carried, ddof=1) / 12**0.5
    assert abs(np.mean(carried) - truth) < 3.5 * error + 0.005
    assert np.mean(plain) - truth > 3 * abs(np.mean(carried) - truth)


def test_it_is_asked_for_and_named() -> None:
    sets = normal(40, 3, seed=1), normal(30, 3, seed=2)
    assert frechet_infinity_figures(pair(*sets, infinity_points=0)) == []
    [figure] = frechet_infinity_figures(pair(*sets, network="inception"))
    assert figure.name == "fid_infinity"
    assert figure.protocol.details["sizes"] == "6 evenly from 4 to 40, nested in random order"
    assert frechet_infinity_figures(pair(*sets))[0].name == "frechet_infinity_classifier"


def test_points_without_end_are_refused() -> None:
    with pytest.raises(ParamsError, match="infinity_points: Input should be less than or equal"):
        validate(DistanceOptions, OPTIONS.model_dump() | {"infinity_points": 10**30}, source="p")


def test_too_few_samples_make_no_line() -> None:
    with pytest.raises(DataError, match="2 samples at 6 points give 1"):
        frechet_infinity_figures(pair(normal(2, 3, seed=1), normal(9, 3, seed=2)))
