import numpy as np
import pytest

from stages.core.errors import DataError
from stages.metrics.distances import DISTANCES, all_distances
from tests.metrics.feature_sets import feature_set, normal, pair

random = np.random.default_rng(0)


def judged(images: int, dim: int):
    return feature_set(random.normal(size=(images, dim)), random.normal(size=(images, 6)))


def test_all_are_named_by_their_network_and_say_how_they_were_taken() -> None:
    figures = all_distances(pair(judged(40, 3), judged(50, 3)))
    names = [figure.name for figure in figures]
    assert len(set(names)) == len(names) >= len(DISTANCES)
    assert all(name.endswith("_classifier") for name in names)
    for figure in figures:
        of_reference = figure.name.startswith(("recall", "coverage"))
        assert figure.n == (50 if of_reference else 40)
        assert figure.protocol.details.get("samples_n") == (40 if of_reference else None)
        assert figure.protocol.reference_n == 50 and figure.protocol.seed == 5
        assert figure.protocol.details["feature_dim"] == 3
        if figure.interval is not None:
            assert figure.interval[0] <= figure.value <= figure.interval[1]
            assert figure.protocol.details["interval_level"] == 0.95
            assert figure.protocol.details["interval"]
    alone = {figure.name for figure in figures if figure.interval is None}
    assert alone == {"frechet_infinity_classifier"}


def test_inceptions_have_the_published_names() -> None:
    names = {f.name for f in all_distances(pair(judged(40, 3), judged(50, 3), "inception"))}
    assert names == {
        "fid",
        "fid_infinity",
        "kid",
        "inception_score",
        "precision_inception",
        "recall_inception",
        "density_inception",
        "coverage_inception",
    }


def test_the_same_seed_gives_the_same_figures() -> None:
    sets = judged(40, 3), judged(50, 3)
    assert all_distances(pair(*sets)) == all_distances(pair(*sets))


def test_features_of_two_networks_are_refused() -> None:
    with pytest.raises(DataError, match="samples have 3 dimensions, the reference 4"):
        pair(normal(9, 3, seed=0), normal(9, 4, seed=1))
