import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from benchmarks.distances.peers import torchmetrics_frechet
from stages.metrics import feature_set
from stages.metrics.frechet import (
    FeatureMoments,
    frechet_distance,
    frechet_figures,
    frechet_slopes,
    gaussian_distance,
)
from stages.metrics.gaussian import Gaussian
from tests.metrics.feature_sets import made_of, normal, pair

random = torch.Generator().manual_seed(0)


def moments(features: torch.Tensor, *cuts: int) -> FeatureMoments:
    result = FeatureMoments(features.shape[1])
    for part in features.tensor_split(cuts):
        result.update(part)
    return result


def with_moments(mean: torch.Tensor, covariance: torch.Tensor) -> FeatureMoments:
    """A set whose sample mean and unbiased covariance are exactly these."""
    noise = torch.randn(64, len(mean), generator=random, dtype=torch.float64)
    noise -= noise.mean(dim=0)
    white = torch.linalg.inv(torch.linalg.cholesky(noise.T @ noise / 63))
    return moments(noise @ white.T @ torch.linalg.cholesky(covariance).T + mean)


def test_a_set_is_at_no_distance_from_itself() -> None:
    features = torch.randn(40, 7, generator=random) * 30 + 100
    assert frechet_distance(moments(features), moments(features)) == pytest.approx(0, abs=1e-8)
    few = features[:3]
    assert frechet_distance(moments(few), moments(few)) == pytest.approx(0, abs=1e-8)


def test_diagonal_gaussians_have_the_closed_form() -> None:
    mean = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    variance = torch.tensor([1.0, 4.0, 0.25], dtype=torch.float64)
    other = torch.tensor([9.0, 1.0, 4.0], dtype=torch.float64)
    expected = mean.square().sum() + (variance.sqrt() - other.sqrt()).square().sum()
    first = with_moments(mean, torch.diag(variance))
    second = with_moments(mean * 0, torch.diag(other))
    assert frechet_distance(first, second) == pytest.approx(expected.item())


def test_full_covariances_agree_with_a_general_matrix_root() -> None:
    factors = torch.randn(2, 4, 4, generator=random, dtype=torch.float64)
    first, second = (a @ a.T + 0.1 * torch.eye(4, dtype=torch.float64) for a in factors)
    mean = torch.arange(4, dtype=torch.float64)
    root = torch.from_numpy(sqrtm((first @ second).numpy()).real)
    expected = mean.square().sum() + torch.trace(first + second - 2 * root)
    distance = frechet_distance(with_moments(mean, first), with_moments(mean * 0, second))
    assert distance == pytest.approx(expected.item())


def test_singular_covariances_are_no_trouble() -> None:
    line = torch.linspace(-1, 1, 21, dtype=torch.float64)
    along = torch.stack([line, line * 0, line * 0], dim=1)
    across = torch.stack([line * 0, 2 * line, line * 0], dim=1)
    expected = line.var() + 4 * line.var()
    assert frechet_distance(moments(along), moments(across)) == pytest.approx(expected.item())
    assert frechet_distance(moments(along), moments(2 * along)) == pytest.approx(line.var().item())


def test_a_single_vector_is_a_point() -> None:
    points = torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0]])
    assert frechet_distance(*map(moments, points)) == pytest.approx(25)


def test_batches_do_not_matter_even_far_from_zero() -> None:
    features = torch.randn(60, 5, generator=random) + 1e3
    reference = moments(torch.randn(60, 5, generator=random) + 1e3)
    whole = frechet_distance(moments(features), reference)
    assert frechet_distance(moments(features, 1, 30), reference) == pytest.approx(whole, rel=1e-9)
    assert frechet_distance(reference, moments(features)) == pytest.approx(whole, rel=1e-9)


def test_few_images_look_further_away_than_they_are() -> None:
    # The documented bias: same distribution, fewer images, larger distance; 20 repeats, always.
    reference = moments(torch.randn(5000, 8, generator=random))

    def mean_distance(count: int) -> float:
        draws = (moments(torch.randn(count, 8, generator=random)) for _ in range(20))
        return sum(frechet_distance(draw, reference) for draw in draws) / 20

    few, many = mean_distance(50), mean_distance(500)
    assert few > 5 * many > 0


def test_the_figure_names_both_counts() -> None:
    [figure] = frechet_figures(pair(normal(30, 2, seed=1), normal(50, 2, seed=2), resamples=0))
    assert (figure.n, figure.protocol.reference_n) == (30, 50)


def test_agrees_with_torchmetrics() -> None:
    first, second = normal(60, 7, seed=1, shift=0.3), normal(50, 7, seed=2, scale=1.5)
    vectors = (torch.from_numpy(images.features).double() for images in (first, second))
    [figure] = frechet_figures(pair(first, second, resamples=0))
    assert figure.value == pytest.approx(torchmetrics_frechet(*vectors, batch=17), rel=1e-9)
    assert figure.interval is None


def test_few_images_come_out_the_same_through_their_moments() -> None:
    for first, second in ((5, 40), (40, 5), (5, 4)):
        sets = normal(first, 9, seed=first), normal(second, 9, seed=second, shift=2)
        through = frechet_distance(*(moments(torch.from_numpy(s.features)) for s in sets))
        assert gaussian_distance(*(s.gaussian for s in sets)) == pytest.approx(through, rel=1e-6)


@pytest.mark.parametrize("dim", [3, 30])
def test_slopes_are_those_of_reweighted_sets(dim: int) -> None:
    # With more images than dimensions and with fewer; weights moved by 1e-3 either way.
    samples, reference = normal(20, dim, seed=1, shift=0.5), normal(25, dim, seed=2).gaussian
    slopes = frechet_slopes(samples, reference)
    assert slopes.mean() == pytest.approx(0, abs=1e-12)
    vectors = samples.features.astype(np.float64)
    for image in (0, 7, 19):

        def distance(step: float, image: int = image) -> float:
            weights = np.full(20, (1 - step) / 20)
            weights[image] += step
            mean = weights @ vectors
            # The unbiased covariance of even weights, N/(N-1) times the plain one.
            factor = (vectors - mean).T * np.sqrt(weights * 20 / 19)
            weighted = Gaussian(
                20, torch.from_numpy(mean), torch.from_numpy(factor), float((factor**2).sum())
            )
            return gaussian_distance(weighted, reference)

        slope = (distance(1e-3) - distance(-1e-3)) / 2e-3
        assert slopes[image] == pytest.approx(slope, rel=1e-3, abs=1e-4)


@pytest.mark.parametrize("images", [5, 50])
@pytest.mark.parametrize("varies", [True, False])
def test_a_reference_that_does_not_vary_is_a_point(images: int, varies: bool) -> None:
    # d^2 = |m - p|^2 + tr C is the mean of |x - p|^2, but for the unbiased N/(N - 1) of the trace.
    samples = normal(images, 8, seed=1, scale=varies)
    reference = normal(images, 8, seed=2, shift=1, scale=0)
    vectors = samples.features.astype(np.float64)
    mean = vectors.mean(axis=0)
    curved = ((vectors - mean) ** 2).sum(axis=1) * images / (images - 1)
    expected = 2 * (vectors - mean) @ (mean - 1) + curved - curved.mean()
    slopes = frechet_slopes(samples, reference.gaussian)
    np.testing.assert_allclose(slopes, expected, rtol=1e-9, atol=1e-9)
    [figure] = frechet_figures(pair(samples, reference))
    assert figure.interval[0] <= figure.value <= figure.interval[1]


def test_the_interval_covers_other_draws_of_samples() -> None:
    # Against one reference, of 80 draws of as many samples; the target is the mean of all draws,
    # as the bias of that many samples is in every one.
    reference = normal(500, 4, seed=1)
    found = [
        frechet_figures(pair(normal(300, 4, seed=10 + i, shift=0.5), reference, level=0.9))[0]
        for i in range(80)
    ]
    target = np.mean([figure.value for figure in found])
    covered = sum(figure.interval[0] < target < figure.interval[1] for figure in found)
    # Binomial of 80 at 0.9: within 62 and 79 with probability 0.998.
    assert 62 <= covered <= 79


def test_the_interval_of_pairs_covers_other_draws_of_pairs_and_is_no_wider() -> None:
    found = []
    for i in range(80):
        reference = normal(300, 4, seed=10 + i)
        samples = made_of(reference, 500 + i, shift=0.3, kept=0.9, noise=0.1)
        [figure] = frechet_figures(pair(samples, reference, level=0.9, paired=True))
        found.append((figure.value, *figure.interval))
        assert "over pairs" in figure.protocol.details["interval"]
    values, low, high = np.array(found).T
    covered = ((low < values.mean()) & (values.mean() < high)).sum()
    assert 62 <= covered <= 79
    # As wide as 90 percent of a normal distribution; of independent sets it would be twice that.
    assert (high - low).mean() == pytest.approx(2 * 1.645 * values.std(ddof=1), rel=0.25)


def test_order_and_batches_change_neither_distance_nor_interval(monkeypatch) -> None:
    samples, reference = normal(40, 3, seed=1, shift=1), normal(50, 3, seed=2)
    [whole] = frechet_figures(pair(samples, reference))
    monkeypatch.setattr(feature_set, "CHUNK_IMAGES", 7)
    turned = samples.rows(np.random.default_rng(0).permutation(40))
    [other] = frechet_figures(pair(turned, reference))
    assert other.value == pytest.approx(whole.value, rel=1e-9)
    assert other.interval == pytest.approx(whole.interval, rel=1e-9)
