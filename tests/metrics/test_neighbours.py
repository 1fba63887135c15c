import torch

from stages.metrics.neighbours import NearestNeighbours

random = torch.Generator().manual_seed(0)


def stream(queries: torch.Tensor, features: torch.Tensor, *cuts: int) -> NearestNeighbours:
    result = NearestNeighbours(queries, neighbours=3)
    rows = torch.arange(len(features))
    for part in rows.tensor_split(cuts):
        result.update(features[part], part)
    return result


def test_finds_a_planted_copy() -> None:
    features = 100 + torch.randn(30, 6, generator=random)
    queries = 100 + torch.randn(4, 6, generator=random)
    queries[2] = features[17]
    found = stream(queries, features, 5, 20)
    assert found.rows[2, 0] == 17 and found.distances[2, 0] == 0
    assert (found.distances[[0, 1, 3], 0] > 0.1).all()


def test_agrees_with_sorting_all_distances_however_the_stream_is_cut() -> None:
    features, queries = torch.randn(25, 4, generator=random), torch.randn(6, 4, generator=random)
    distances = (queries[:, None] - features).square().sum(dim=2).sqrt()
    expected, rows = distances.sort(dim=1)
    for cuts in [(), (1,), (2, 9, 10)]:
        found = stream(queries, features, *cuts)
        torch.testing.assert_close(found.distances, expected[:, :3])
        assert torch.equal(found.rows, rows[:, :3])


def test_fewer_vectors_than_neighbours_leave_gaps() -> None:
    found = stream(torch.zeros(2, 3), torch.ones(1, 3))
    assert found.rows.tolist() == [[0, -1, -1]] * 2
    assert torch.isinf(found.distances[:, 1:]).all()
