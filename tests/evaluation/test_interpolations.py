import torch

from stages.evaluation.interpolations import STEPS, between


def test_a_way_begins_and_ends_at_its_images_in_even_steps() -> None:
    random = torch.Generator().manual_seed(0)
    start, end = (torch.randn(2, 3, 4, generator=random) for _ in range(2))
    way = between(start, end)
    assert way.shape == (STEPS, 2, 3, 4)
    assert torch.equal(way[0], start) and torch.equal(way[-1], end)
    steps = way.diff(dim=0)
    torch.testing.assert_close(steps, ((end - start) / (STEPS - 1)).expand_as(steps))
