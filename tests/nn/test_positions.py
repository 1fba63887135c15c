"""Places told to a transformer, in raster and in any order."""

import pytest
import torch

from stages.nn.orders import draw_orders, random_share
from stages.nn.positions import LearnedPositions, RotaryPositions

WIDTH, HEAD_DIM = 7, 8
GRID, LEVELS = ((2, 3),), ((1, 2), (2, 4))


@pytest.mark.parametrize("any_order", [False, True])
@pytest.mark.parametrize("parts", [GRID, LEVELS])
def test_learned_places_follow_their_tokens(parts, any_order):
    positions = LearnedPositions(parts, WIDTH, any_order=any_order)
    tokens = sum(rows * columns for rows, columns in parts)
    raster = positions.told(None)
    assert raster.shape == (1, tokens, WIDTH)
    order = torch.stack([torch.arange(tokens), torch.randperm(tokens)])
    told = positions.told(order)
    torch.testing.assert_close(told[0], raster[0])
    expected = positions.predicted()[order[1]]
    if any_order:
        expected[1:] += positions.read()[order[1, :-1]]
    torch.testing.assert_close(told[1], expected)


def test_rotary_places_count_from_one_and_keys_are_one_behind():
    positions = RotaryPositions(GRID, WIDTH, HEAD_DIM)
    assert_queries_turned_by(positions, [[r, c] for r in (1, 2) for c in (1, 2, 3)])
    assert not list(positions.parameters()) and not positions.told(None).any()
    order = torch.stack([torch.arange(6), torch.randperm(6)])
    in_order, raster = positions.rotations(order), positions.rotations(None)
    for turns in (in_order.cosines, raster.cosines, in_order.sines, raster.sines):
        queries, keys = turns.unbind(dim=2)
        assert torch.equal(keys[:, 1:], queries[:, :-1])
    for rotations in (in_order, raster):
        assert (rotations.cosines[:, 0, 1] == 1).all(), "the class stands at the origin"
        assert (rotations.sines[:, 0, 1] == 0).all()
    torch.testing.assert_close(in_order.cosines[:1], raster.cosines)
    torch.testing.assert_close(in_order.sines[:1], raster.sines)


def test_rotary_places_of_a_coarse_grid_are_the_centres_of_its_cells():
    positions = RotaryPositions(LEVELS, WIDTH, HEAD_DIM)
    assert_queries_turned_by(positions, [[1.5, 1.5], [1.5, 3.5], [1.0, 1.0], [1.0, 2.0]])
    told = positions.told(None)[0]
    assert torch.equal(told[0], told[1]) and not torch.equal(told[1], told[2])


def assert_queries_turned_by(positions, places):
    """The first rows of a raster have these places: the fastest pairs turn by one a cell."""
    rotations = positions.rotations(None)
    for turns, function in ((rotations.cosines, torch.cos), (rotations.sines, torch.sin)):
        fastest = turns[0, : len(places), 0, 0, :: HEAD_DIM // 4]
        torch.testing.assert_close(fastest, function(torch.tensor(places, dtype=torch.float32)))


def test_the_share_of_random_orders_falls_in_a_line():
    shares = [float(random_share(torch.tensor(t), 4, 12)) for t in (0.0, 4.0, 6.0, 8.0, 12.0, 40.0)]
    assert shares == [1.0, 1.0, 0.75, 0.5, 0.0, 0.0]
    assert random_share(None, 4, 12) == 0


def test_random_orders_are_uniform_over_permutations():
    torch.manual_seed(0)
    orders = draw_orders(12_000, 3, 1.0, torch.device("cpu"))
    counts = torch.bincount((orders * torch.tensor([9, 3, 1])).sum(dim=1))
    counts = counts[counts > 0]
    # Five standard errors of a binomial with p = 1/6.
    assert len(counts) == 6 and (counts - 2000).abs().max() < 5 * (12_000 * 5 / 36) ** 0.5
