"""Nearest vectors against brute force, by products and by the kernel; the first of equal ones."""

import pytest
import torch

from benchmarks.cost_growth.memory import peak_bytes
from stages.nn.kernels import nearest as file
from stages.nn.kernels.nearest import _by_kernel as look_up
from stages.nn.kernels.nearest import _by_products, _suits_the_kernel, nearest


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def brute_force(vectors, codebook):
    distances = (vectors[:, None] - codebook[None]).square().sum(dim=-1)
    return distances.argmin(dim=1), distances.min(dim=1).values


def test_nearest_is_brute_force_across_chunks(monkeypatch):
    monkeypatch.setattr(file, "_DISTANCES_AT_ONCE", 7 * 4)
    vectors = torch.randn(50, 3, generator=stream())
    codebook = torch.randn(7, 3, generator=stream(1))
    codes, distances = nearest(vectors, codebook)
    expected_codes, expected_distances = brute_force(vectors, codebook)
    assert torch.equal(codes, expected_codes)
    torch.testing.assert_close(distances, expected_distances, atol=1e-5, rtol=1e-5)


def test_memory_is_bounded_by_chunks_never_codes_by_vectors():
    vectors = torch.randn(2048, 8, generator=stream())
    codebook = torch.randn(32_768, 8, generator=stream(1))
    whole = 4 * len(vectors) * len(codebook)
    assert peak_bytes(lambda: nearest(vectors, codebook)) < whole / 10


def test_of_equal_entries_the_first_is_chosen():
    codes, _ = nearest(torch.ones(4, 3), torch.ones(5, 3))
    assert codes.tolist() == [0, 0, 0, 0]


def test_neighbours_do_not_change_under_autocast():
    # Entries differ by less than bfloat16 resolves at this magnitude.
    codebook = 100 + 0.1 * torch.arange(6.0).repeat(2, 1).T
    vectors = codebook[[4, 0, 5, 2]] + 0.01
    with torch.autocast("cpu", dtype=torch.bfloat16):
        codes, _ = nearest(vectors, codebook)
    assert codes.tolist() == [4, 0, 5, 2]


by_the_kernel = pytest.mark.usefixtures("_compiler")


@by_the_kernel
@pytest.mark.parametrize(
    ("count", "dim", "codes"), [(1, 5, 1), (7, 5, 3), (9, 5, 64), (50, 5, 65), (130, 16, 517)]
)
def test_finds_what_brute_force_finds(count, dim, codes):
    torch.manual_seed(count)
    vectors, entries = torch.randn(count, dim), torch.randn(codes, dim)
    found, distances = look_up(vectors, entries)
    expected = torch.cdist(vectors.double(), entries.double()).square().min(dim=1)
    assert found.dtype == torch.int64
    assert torch.equal(found, expected.indices)
    torch.testing.assert_close(distances.double(), expected.values, rtol=1e-5, atol=1e-5)


@by_the_kernel
@pytest.mark.parametrize("codes", [2, 40, 300])
def test_of_equally_near_entries_it_takes_the_first(codes):
    entries = torch.ones(codes, 5)
    entries[0] = 3.0
    found, distances = look_up(torch.ones(6, 5), entries)
    assert torch.equal(found, torch.ones(6, dtype=torch.int64))
    assert torch.equal(distances, torch.zeros(6))


@by_the_kernel
def test_views_are_read_as_they_are():
    torch.manual_seed(0)
    vectors, entries = torch.randn(16, 9), torch.randn(5, 12)
    views = vectors.T[:, ::2], entries.T[:8].T
    for one, two in zip(look_up(*views), look_up(*(v.contiguous() for v in views)), strict=True):
        assert torch.equal(one, two)


@by_the_kernel
def test_results_do_not_depend_on_threads():
    torch.manual_seed(0)
    vectors, entries = torch.randn(333, 16), torch.randn(100, 16)
    before, found = torch.get_num_threads(), []
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            found.append(look_up(vectors, entries))
    finally:
        torch.set_num_threads(before)
    for other in found[1:]:
        assert all(torch.equal(*pair) for pair in zip(found[0], other, strict=True))


def test_others_are_left_to_products(monkeypatch, _compiler):
    assert _suits_the_kernel(torch.zeros(3, 64), torch.zeros(9, 64))
    assert not _suits_the_kernel(torch.zeros(3, 65), torch.zeros(9, 65))
    assert not _suits_the_kernel(torch.zeros(3, 64), torch.zeros(2**13, 64))
    vectors, entries = torch.randn(50, 5), torch.randn(20, 5)
    found = []
    for there in (True, False):
        monkeypatch.setattr(file, "can_compile", lambda told=there: told)
        found.append(torch.ops.latentline.nearest(vectors, entries))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[1][1], _by_products(vectors, entries)[1])
