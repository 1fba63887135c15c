"""Running means against a slow loop, in the plain and on the sphere; start and revival."""

import pytest
import torch

from stages.core.sections import validate
from stages.nn.codebook_options import CodebookOptions
from stages.nn.ema_codebook import EMACodebook
from stages.nn.kernels.nearest import nearest

OPTIONS = {
    "num_codes": 7,
    "dim": 5,
    "commitment_weight": 1.0,
    "gradient": "straight_through",
    "decay": 0.9,
    "revive_below": 0.1,
    "kmeans_iterations": 3,
    "kmeans_vectors": 50,
}
either = pytest.mark.parametrize("unit", [False, True], ids=["plain", "sphere"])


def stream(seed=0):
    return torch.Generator().manual_seed(seed)


def codebook(unit, **changes):
    torch.manual_seed(0)
    options = validate(CodebookOptions, OPTIONS | changes, source="test")
    return EMACodebook(options, unit=unit)


def some_vectors(unit, count=12, seed=0):
    vectors = torch.randn(count, 5, generator=stream(seed))
    return vectors / vectors.norm(dim=1, keepdim=True) if unit else vectors


def follow(book, vectors):
    codes, distances = nearest(vectors, book.entries)
    book.follow(vectors, codes, distances)
    return codes.tolist()


def end_step(book, seed=0):
    book.end_step(stream(seed))


def put_out_of_reach(book):
    """All entries but the first where no vector chooses them."""
    if book.unit:
        book.entries[1:] = -book.entries[0]
    else:
        book.entries[1:] += 1000


@either
def test_averages_are_those_of_a_slow_loop(unit):
    book = codebook(unit, revive_below=0.0)
    sizes = book.cluster_size.double().tolist()
    sums = book.vector_sums.double().clone()
    for step in range(4):
        vectors = some_vectors(unit, seed=step)
        codes = follow(book, vectors)
        end_step(book)
        for code in range(7):
            mine = [vectors[i].double() for i in range(12) if codes[i] == code]
            sizes[code] = 0.9 * sizes[code] + 0.1 * len(mine)
            sums[code] = 0.9 * sums[code] + 0.1 * sum(mine, torch.zeros(5))
    total = sum(sizes)
    for code in range(7):
        smoothed = (sizes[code] + 1e-5) / (total + 7 * 1e-5) * total
        expected = sums[code] / (sums[code].norm() if unit else smoothed)
        torch.testing.assert_close(book.entries[code], expected.float(), atol=1e-5, rtol=1e-4)


def test_entries_stay_on_the_sphere():
    book = codebook(unit=True)
    for step in range(30):
        follow(book, some_vectors(True, seed=step))
        end_step(book, step)
        torch.testing.assert_close(book.entries.norm(dim=1), torch.ones(7))


def test_an_entry_that_was_forgotten_stays_on_the_sphere():
    book = codebook(unit=True, decay=0.0, revive_below=0.0)
    put_out_of_reach(book)
    kept = book.entries[1].clone()
    follow(book, book.entries[:1].repeat(4, 1))
    end_step(book)
    assert book.vector_sums[1].norm() == 0
    assert torch.equal(book.entries[1], kept)


@either
def test_a_start_serves_the_vectors_and_sets_the_averages_to_match(unit):
    book, vectors = codebook(unit), some_vectors(unit, count=200)
    before = nearest(vectors, book.entries)[1].mean()
    book.start(vectors, stream())
    assert nearest(vectors, book.entries)[1].mean() < before
    assert book.cluster_size.sum() == 50
    means = book.vector_sums / book.cluster_size[:, None]
    torch.testing.assert_close(means, book.entries)


@either
def test_dead_entries_move_onto_recent_vectors_with_their_averages(unit):
    book, vectors = codebook(unit, decay=0.0, revive_below=0.5), some_vectors(unit)
    put_out_of_reach(book)
    codes = follow(book, vectors)
    dead = torch.bincount(torch.tensor(codes), minlength=7) < 0.5 * 12 / 7
    # Of opposite directions on the sphere, some vectors choose the second.
    assert 3 <= dead.sum() <= 6
    end_step(book)
    moved = book.entries[dead]
    assert all((vectors == entry).all(dim=1).any() for entry in moved)
    assert len(moved.unique(dim=0)) == dead.sum()
    assert torch.allclose(book.cluster_size[dead], torch.tensor(12 / 7))
    means = book.vector_sums / book.cluster_size[:, None]
    torch.testing.assert_close(means[dead], moved)


@either
def test_nothing_moves_without_a_step(unit):
    book = codebook(unit, decay=0.0, revive_below=0.5)
    before = book.entries.clone()
    end_step(book)
    assert torch.equal(book.entries, before)
    follow(book, some_vectors(unit))
    end_step(book)
    before = book.entries.clone()
    book.cluster_size.zero_()[0] = 12
    end_step(book)
    assert torch.equal(book.entries, before)


@either
def test_a_step_in_pieces_is_the_step_as_a_whole(unit):
    whole, cut = (codebook(unit, revive_below=0.0) for _ in range(2))
    for step in range(3):
        vectors = some_vectors(unit, seed=step)
        follow(whole, vectors)
        for piece in vectors.split(4):
            follow(cut, piece)
        end_step(whole)
        end_step(cut)
    torch.testing.assert_close(cut.entries, whole.entries)
    torch.testing.assert_close(cut.cluster_size, whole.cluster_size)


@either
def test_zero_asks_for_no_revival(unit):
    book = codebook(unit, decay=0.0, revive_below=0.0)
    put_out_of_reach(book)
    follow(book, book.entries[:1].repeat(4, 1))
    end_step(book)
    assert (book.cluster_size[1:] == 0).all()
