import numpy as np
import pytest
import torch

from stages.metrics.gaussian import FeatureMoments, gaussian_of_rows
from tests.metrics.feature_sets import feature_set, normal

random = torch.Generator().manual_seed(0)


def test_the_factor_gives_the_covariance_back_from_moments_and_from_rows() -> None:
    vectors = torch.randn(9, 4, generator=random) * 3 + 50
    moments = FeatureMoments(4)
    moments.update(vectors)
    expected = torch.from_numpy(np.cov(vectors.double().numpy().T))
    for gaussian in (moments.gaussian(), gaussian_of_rows(vectors)):
        torch.testing.assert_close(gaussian.factor @ gaussian.factor.T, expected)
        torch.testing.assert_close(gaussian.mean, vectors.double().mean(dim=0))
        assert gaussian.spread == pytest.approx(torch.trace(expected).item())
        assert gaussian.count == 9


def test_dead_and_dependent_features_lower_the_rank_only() -> None:
    vectors = torch.randn(30, 5, generator=random, dtype=torch.float64)
    vectors[:, 1] = 7
    vectors[:, 4] = vectors[:, 0] - 2 * vectors[:, 2]
    moments = FeatureMoments(5)
    moments.update(vectors)
    gaussian = moments.gaussian()
    assert gaussian.factor.shape == (5, 3)
    torch.testing.assert_close(gaussian.factor @ gaussian.factor.T, moments.covariance)


def test_a_set_with_no_more_images_than_dimensions_is_its_own_factor() -> None:
    assert normal(6, 6, seed=1).gaussian.factor.shape == (6, 6)
    few = normal(3, 6, seed=1)
    assert few.gaussian.factor.shape == (6, 3)
    expected = torch.from_numpy(np.cov(few.features.astype(np.float64).T))
    torch.testing.assert_close(few.gaussian.factor @ few.gaussian.factor.T, expected)


def test_nothing_varies() -> None:
    gaussian = feature_set(np.ones((8, 3))).gaussian
    assert gaussian.factor.shape == (3, 0) and gaussian.spread == 0
