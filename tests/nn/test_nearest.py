"""The kernel that looks up short vectors: as brute force does, and the first of equal ones."""

import pytest
import torch

from stages.core.errors import ParamsError
from stages.nn import nearest
from stages.nn.compiled_step import compiled_stepper
from stages.nn.nearest import can_look_up, look_up


@pytest.fixture(autouse=True, scope="module")
def _needs_a_compiler():
    try:
        compiled_stepper()
    except ParamsError as error:
        pytest.skip(str(error))
    if not can_look_up(torch.zeros(1, 1), torch.zeros(1, 1)):
        pytest.skip("PyTorch compiles no C++ here")


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


@pytest.mark.parametrize("codes", [2, 40, 300])
def test_of_equally_near_entries_it_takes_the_first(codes):
    entries = torch.ones(codes, 5)
    entries[0] = 3.0
    found, distances = look_up(torch.ones(6, 5), entries)
    assert torch.equal(found, torch.ones(6, dtype=torch.int64))
    assert torch.equal(distances, torch.zeros(6))


def test_views_are_read_as_they_are():
    torch.manual_seed(0)
    vectors, entries = torch.randn(16, 9), torch.randn(5, 12)
    views = vectors.T[:, ::2], entries.T[:8].T
    for one, two in zip(look_up(*views), look_up(*(v.contiguous() for v in views)), strict=True):
        assert torch.equal(one, two)


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


def test_others_are_left_to_pytorch(monkeypatch):
    assert can_look_up(torch.zeros(3, 64), torch.zeros(9, 64))
    assert not can_look_up(torch.zeros(3, 65), torch.zeros(9, 65))
    assert not can_look_up(torch.zeros(3, 64), torch.zeros(2**13, 64))
    assert not can_look_up(torch.zeros(3, 4).double(), torch.zeros(9, 4).double())
    assert not can_look_up(torch.zeros(3, 4, device="meta"), torch.zeros(9, 4, device="meta"))
    monkeypatch.setattr(nearest, "can_compile", lambda: False)
    assert not can_look_up(torch.zeros(3, 64), torch.zeros(9, 64))
