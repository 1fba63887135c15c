import pytest
import torch
from scipy.linalg import sqrtm

from stages.metrics.frechet import FeatureMoments, frechet_distance, frechet_figure
from tests.metrics.examples import PROTOCOL

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
    figure = frechet_figure(
        "frechet_classifier", moments(torch.zeros(3, 2)), moments(torch.zeros(5, 2)), PROTOCOL
    )
    assert (figure.n, figure.protocol.reference_n) == (3, 5)
    assert figure.protocol.resize == PROTOCOL.resize
