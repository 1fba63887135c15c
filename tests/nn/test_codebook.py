"""K-means against its promise, counts in closed form."""

import itertools
import math

import pytest
import torch

from stages.nn import codebook as book
from stages.nn.kernels.nearest import nearest


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def test_vectors_are_read_in_raster_order():
    latents = torch.arange(2 * 3 * 4 * 5.0).view(2, 3, 4, 5)
    vectors = book.flat_vectors(latents)
    assert torch.equal(vectors[1 * 20 + 2 * 5 + 3], latents[1, :, 2, 3])


@pytest.mark.parametrize(("counts", "value"), [([5, 5, 5, 5], 4.0), ([9, 0, 0], 1.0)])
def test_perplexity_of_even_and_of_single_use(counts, value):
    assert book.perplexity(torch.tensor(counts)).item() == pytest.approx(value)


def test_perplexity_is_the_exponential_of_the_entropy():
    expected = math.exp(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)))
    assert book.perplexity(torch.tensor([3, 1, 0])).item() == pytest.approx(expected)


def test_perplexity_of_counts_is_exact_to_float64():
    counts = [1, 2, 2**24 + 1]
    shares = [count / sum(counts) for count in counts]
    expected = math.exp(-sum(share * math.log(share) for share in shares))
    assert book.perplexity(torch.tensor(counts)).item() == pytest.approx(expected, rel=1e-14)


def test_perplexity_of_running_shares_stays_in_their_type():
    assert book.perplexity(torch.full((6,), 1 / 6)).dtype == torch.float32


def test_figures_of_a_histogram():
    found = book.code_figures(torch.tensor([4, 0, 4, 0, 0]))
    assert found == pytest.approx({"code_usage": 2 / 5, "code_perplexity": 2.0})
    assert book.code_figures(torch.zeros(3, dtype=torch.int64)) == {}


def test_counts_and_usage():
    counts = book.code_counts(torch.tensor([[[0, 2], [2, 2]]]), 5)
    assert counts.tolist() == [1, 0, 3, 0, 0]
    assert book.code_usage(counts).item() == pytest.approx(2 / 5)


def test_kmeans_never_raises_distortion_and_finds_separate_clusters():
    centres = 10 * torch.eye(6, 8)
    vectors = centres.repeat(20, 1) + 0.1 * torch.randn(120, 8, generator=stream())
    distortions = [
        nearest(vectors, book.kmeans(vectors, 6, n, stream(1))[0])[1].mean().item()
        for n in range(6)
    ]
    assert all(after <= before + 1e-4 for before, after in itertools.pairwise(distortions))
    # Every cluster has its own entry: what is left is the noise, 8 * 0.01.
    assert distortions[-1] < 0.1


def test_kmeans_on_the_sphere_gives_mean_directions():
    # Two bundles of directions around axes that differ in length, were they not brought to 1.
    axes = torch.tensor([[1.0, 0, 0], [0, 0, 1]]).repeat_interleave(30, dim=0)
    vectors = axes + 0.2 * torch.randn(60, 3, generator=stream())
    vectors = vectors / vectors.norm(dim=1, keepdim=True)
    centres, counts = book.kmeans(vectors, 2, 8, stream(1), unit=True)
    assert counts.sum() == 60
    codes = torch.cdist(vectors, centres).argmin(dim=1)
    for code in range(2):
        total = vectors[codes == code].sum(dim=0)
        torch.testing.assert_close(centres[code], total / total.norm())


def test_kmeans_of_repeated_vectors_leaves_no_code_unused():
    # Half the vectors coincide, as those of a black background do.
    vectors = torch.cat([torch.zeros(60, 3), torch.randn(60, 3, generator=stream())])
    _, counts = book.kmeans(vectors, 16, 5, stream(1))
    assert counts.sum() == 120
    assert (counts > 0).all()


def test_kmeans_of_fewer_vectors_than_codes():
    vectors = torch.randn(3, 2, generator=stream())
    centres, counts = book.kmeans(vectors, 8, 2, stream())
    assert centres.shape == (8, 2)
    assert counts.sum() == 3


def test_revival_gives_each_dead_code_a_vector_of_its_own():
    dead = torch.tensor([False, True, True, False, True])
    recent, distances = torch.arange(6.0)[:, None].repeat(1, 2), torch.ones(6)
    moved, vectors = book.revival(dead, recent, distances, stream())
    assert torch.equal(moved, dead)
    assert len(vectors[moved].unique(dim=0)) == 3
    assert torch.equal(book.revival(dead, recent, distances, stream())[1], vectors)


def test_revival_moves_as_many_as_there_are_vectors():
    dead = torch.ones(5, dtype=torch.bool)
    moved, vectors = book.revival(dead, torch.randn(2, 3), torch.ones(2), stream())
    assert moved.tolist() == [True, True, False, False, False]
    assert vectors.shape == (5, 3)


def test_revival_chooses_in_proportion_to_squared_distance():
    recent, distances = torch.arange(3.0)[:, None], torch.tensor([0.0, 1.0, 3.0])
    dead = torch.tensor([True])
    chosen = [book.revival(dead, recent, distances, stream(s))[1].item() for s in range(2000)]
    assert 0.0 not in chosen
    # A share of 2000 draws with probability 0.75: standard error 0.01.
    assert abs(chosen.count(2.0) / 2000 - 0.75) < 5 * 0.01
