"""Rotations: what they keep, and that only differences of places count."""

import pytest
import torch

from stages.nn.rotary import Rotations, rotated

HEAD_DIM = 12


def turned(vectors, place):
    """Vectors (batch, heads, tokens, head_dim) turned as queries and, the same, as keys."""
    places = torch.tensor(place).expand(1, vectors.shape[2], 2)
    compared = vectors.transpose(1, 2).unsqueeze(2).repeat(1, 1, 2, 1, 1)
    queries, keys = rotated(compared, Rotations.of(places, places, HEAD_DIM)).unbind(2)
    assert torch.equal(queries, keys)
    return queries.transpose(1, 2)


def test_products_depend_on_the_difference_of_places_alone():
    queries, keys = torch.randn(2, 3, 5, HEAD_DIM), torch.randn(2, 3, 5, HEAD_DIM)
    product = (turned(queries, [4.0, 7.0]) * turned(keys, [2.0, 1.0])).sum(dim=-1)
    moved = (turned(queries, [9.0, 6.5]) * turned(keys, [7.0, 0.5])).sum(dim=-1)
    torch.testing.assert_close(product, moved, rtol=1e-4, atol=1e-4)
    other = (turned(queries, [4.0, 7.0]) * turned(keys, [1.0, 2.0])).sum(dim=-1)
    assert (product - other).abs().max() > 0.1


def test_lengths_stay_and_the_origin_turns_nothing():
    vectors = torch.randn(2, 3, 5, HEAD_DIM)
    torch.testing.assert_close(turned(vectors, [3.0, 8.0]).norm(dim=-1), vectors.norm(dim=-1))
    assert torch.equal(turned(vectors, [0.0, 0.0]), vectors)


@pytest.mark.parametrize("axis", [0, 1])
def test_rows_turn_one_half_of_the_pairs_and_columns_the_other(axis):
    place = [0.0, 0.0]
    place[axis] = 2.0
    origin = torch.zeros(1, 1, 2)
    turns = Rotations.of(torch.tensor([[place]]), origin, HEAD_DIM)
    # Of the query.
    cos, sin = (
        numbers[0, 0, 0, 0].unflatten(0, (2, 3)) for numbers in (turns.cosines, turns.sines)
    )
    assert (turns.cosines[0, 0, 1] == 1).all() and (turns.sines[0, 0, 1] == 0).all()
    assert (cos[1 - axis] == 1).all() and (sin[1 - axis] == 0).all()
    expected = 2 * 10000 ** -(torch.arange(3) / 3)
    torch.testing.assert_close(torch.atan2(sin[axis], cos[axis]), expected)


def test_one_position_of_a_sequence_is_cut_out():
    whole = Rotations.of(torch.randn(1, 5, 2), torch.randn(1, 5, 2), HEAD_DIM)
    here = whole.at(3)
    assert torch.equal(here.cosines, whole.cosines[:, 3:4])
    assert torch.equal(here.sines, whole.sines[:, 3:4])


def test_a_query_and_its_key_have_places_of_their_own():
    queries, keys = torch.randn(2, 4, 5, 2)
    compared = torch.randn(4, 5, 2, 3, HEAD_DIM)
    both = rotated(compared, Rotations.of(queries, keys, HEAD_DIM))
    swapped = rotated(compared.flip(2), Rotations.of(keys, queries, HEAD_DIM)).flip(2)
    torch.testing.assert_close(both, swapped)
    assert not torch.allclose(both, rotated(compared, Rotations.of(keys, queries, HEAD_DIM)))
