import numpy as np
import pytest
import torch
from sklearn.metrics.pairwise import polynomial_kernel

from benchmarks.distances.peers import torchmetrics_kernel
from stages.core.errors import DataError, ParamsError
from stages.core.sections import validate
from stages.metrics import feature_set as chunks
from stages.metrics.kernel import kernel_distance, kernel_figures
from stages.metrics.pair import DistanceOptions
from tests.metrics.feature_sets import OPTIONS, feature_set, made_of, normal, pair


def by_loops(samples, reference) -> float:
    first, second = (images.features.astype(np.float64) for images in (samples, reference))
    n, m, dim = len(first), len(second), first.shape[1]
    of = {
        key: polynomial_kernel(a, b, degree=3, gamma=1 / dim, coef0=1)
        for key, a, b in (("xx", first, first), ("yy", second, second), ("xy", first, second))
    }
    within = (of["xx"].sum() - np.trace(of["xx"])) / (n * (n - 1))
    return within + (of["yy"].sum() - np.trace(of["yy"])) / (m * (m - 1)) - 2 * of["xy"].mean()


def test_agrees_with_another_polynomial_kernel_however_it_is_cut(monkeypatch) -> None:
    samples, reference = normal(23, 5, seed=1, shift=0.3), normal(31, 5, seed=2)
    expected = by_loops(samples, reference)
    whole = kernel_distance(samples, reference)
    assert whole.value == pytest.approx(expected, rel=1e-9)
    monkeypatch.setattr(chunks, "CHUNK_IMAGES", 7)
    cut = kernel_distance(samples, reference)
    for field in ("value", "variance", "variance_of_samples"):
        assert getattr(cut, field) == pytest.approx(getattr(whole, field), rel=1e-9)


def test_agrees_with_torchmetrics_at_equal_settings() -> None:
    samples, reference = normal(40, 6, seed=1, shift=0.2), normal(40, 6, seed=2)
    vectors = (torch.from_numpy(images.features).double() for images in (samples, reference))
    expected = torchmetrics_kernel(*vectors, subsets=1, size=40)
    assert kernel_distance(samples, reference).value == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(("shift", "least", "most"), [(0.0, 0.8, 2.0), (0.4, 0.7, 1.4)])
def test_it_has_no_bias_and_its_variance_is_one(shift: float, least: float, most: float) -> None:
    # Pairs of sets; x = shift + u, y = v. Over standard normal u, u' and with t = shift^2,
    # x'x'/dim has mean t, variance (2t + 1)/dim and third central moment 6t/dim^2; those of
    # y'y'/dim are 0, 1/dim, 0, and of x'y/dim 0, (1 + t)/dim, 0.
    dim, repeats, t = 3, 200, shift**2
    found = [
        kernel_distance(normal(60, dim, seed=2 * i, shift=shift), normal(70, dim, seed=2 * i + 1))
        for i in range(repeats)
    ]
    moved = (1 + t) ** 3 + 3 * (1 + t) * (2 * t + 1) / dim + 6 * t / dim**2
    expected = moved + 1 + 3 / dim - 2 * (1 + 3 * (1 + t) / dim)
    values = np.array([one.value for one in found])
    error = values.std(ddof=1) / repeats**0.5
    # 99.9 percent.
    assert abs(values.mean() - expected) < 3.3 * error
    # For alike sets it errs to the safe side; measured over 1500 pairs: 1.5 and 0.97.
    assert least < np.mean([one.variance for one in found]) / values.var(ddof=1) < most


@pytest.mark.parametrize("cut", [2048, 7])
def test_of_pairs_it_leaves_out_an_image_with_its_own(monkeypatch, cut: int) -> None:
    monkeypatch.setattr(chunks, "CHUNK_IMAGES", cut)
    reference = normal(23, 5, seed=2)
    samples = made_of(reference, 3, 0.1, 0.9, 0.2)
    x, y = (images.features.astype(np.float64) for images in (samples, reference))

    def k(a, b):
        return (a @ b / 5 + 1) ** 3

    def h(i, j):
        return k(x[i], x[j]) + k(y[i], y[j]) - k(x[i], y[j]) - k(y[i], x[j])

    rows = [[h(i, j) for j in range(23) if j != i] for i in range(23)]
    found = kernel_distance(samples, reference, paired=True)
    assert found.value == pytest.approx(np.mean(rows), rel=1e-9)
    # Close to the jackknife's, which is another estimate of the same.
    jackknife = 4 / 23 * np.var(np.mean(rows, axis=1), ddof=1)
    assert found.variance == pytest.approx(jackknife, rel=0.3)


def test_of_pairs_it_has_no_bias_and_its_variance_is_one() -> None:
    # As above, with x of variance v = kept^2 + noise^2 beside what it was made of.
    dim, repeats, shift, kept, noise = 3, 200, 0.2, 0.9, 0.3
    t, v, found = shift**2, kept**2 + noise**2, []
    for i in range(repeats):
        reference = normal(60, dim, seed=2 * i)
        samples = made_of(reference, 2 * i + 1, shift, kept, noise)
        found.append(kernel_distance(samples, reference, paired=True))
    moved = (1 + t) ** 3 + 3 * (1 + t) * (v**2 + 2 * t * v) / dim + 6 * t * v**2 / dim**2
    expected = moved + 1 + 3 / dim - 2 * (1 + 3 * (t + v) / dim)
    values = np.array([one.value for one in found])
    error = values.std(ddof=1) / repeats**0.5
    assert abs(values.mean() - expected) < 3.3 * error
    assert 0.7 < np.mean([one.variance for one in found]) / values.var(ddof=1) < 1.4


@pytest.mark.parametrize("block", [0, 15])
def test_perfect_reconstructions_are_at_no_distance(block: int) -> None:
    images = normal(61, 4, seed=1, shift=1)
    [figure] = kernel_figures(pair(images, images, paired=True, kernel_block=block))
    assert figure.value == pytest.approx(0, abs=1e-12)
    assert figure.interval == pytest.approx((0, 0), abs=1e-12)
    assert figure.protocol.details["sets"].startswith("paired")
    assert "over pairs" in figure.protocol.details["interval"]
    # Beside each other, as if by chance, they would lie below 0.
    assert kernel_distance(images, images).value < -0.1


def test_blocks_of_pairs_keep_the_pairs() -> None:
    reference = normal(90, 4, seed=2)
    both = made_of(reference, 3, 0.3, 0.9, 0.1), reference
    [whole] = kernel_figures(pair(*both, paired=True))
    [blocks] = kernel_figures(pair(*both, paired=True, kernel_block=15))
    errors = [figure.protocol.found["standard_error"] for figure in (whole, blocks)]
    assert abs(blocks.value - whole.value) < 4 * errors[1]
    # Pairs torn apart would have an error several times as large.
    assert errors[1] < 2 * errors[0]


def test_the_interval_is_of_another_draw_of_samples() -> None:
    reference = normal(50, 4, seed=1)
    values, variances = [], []
    for seed in range(150):
        found = kernel_distance(normal(40, 4, seed=100 + seed, shift=0.3), reference)
        values.append(found.value)
        variances.append(found.variance_of_samples)
    assert np.mean(variances) == pytest.approx(np.var(values, ddof=1), rel=0.35)


def test_blocks_have_the_same_expectation_and_need_two_of_each() -> None:
    samples, reference = normal(90, 4, seed=1, shift=0.5), normal(80, 4, seed=2)
    [whole] = kernel_figures(pair(samples, reference))
    [blocks] = kernel_figures(pair(samples, reference, kernel_block=20))
    error = blocks.protocol.found["standard_error"]
    assert abs(blocks.value - whole.value) < 4 * error
    assert blocks.protocol.details["pairs"] == "disjoint random blocks of 20"
    # Ten samples fill no block.
    assert (blocks.n, blocks.protocol.reference_n) == (80, 80)
    assert (whole.n, whole.protocol.reference_n) == (90, 80)
    assert blocks.interval[0] < blocks.value < blocks.interval[1]
    with pytest.raises(DataError, match="at least two blocks"):
        kernel_figures(pair(samples, reference, kernel_block=41))


def test_too_few_images_are_refused() -> None:
    with pytest.raises(DataError, match="the reference came to 3"):
        kernel_distance(normal(9, 2, seed=0), normal(3, 2, seed=1))
    for block in (1, 3):
        with pytest.raises(ParamsError, match=f"kernel_block must be 0 .*; got {block}"):
            validate(DistanceOptions, OPTIONS.model_dump() | {"kernel_block": block}, source="p")
    validate(DistanceOptions, OPTIONS.model_dump() | {"kernel_block": 4}, source="p")


def test_only_inceptions_is_kid() -> None:
    sets = normal(9, 2, seed=0), feature_set(np.zeros((8, 2)))
    assert kernel_figures(pair(*sets, network="inception"))[0].name == "kid"
    assert kernel_figures(pair(*sets))[0].name == "kernel_classifier"
