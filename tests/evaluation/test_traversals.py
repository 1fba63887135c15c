"""A traversal moves one number and leaves the others; the largest come first."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from stages.assembly.first_stage import FirstStage
from stages.core.shapes import Labels, Pixels
from stages.evaluation.traversals import REACH, STARTS, STEPS, draw_traversals, traversed, variances

CPU = torch.device("cpu")
SCALE = 0.5


class Watched(FirstStage):
    """A decoder that remembers what it was asked for and shows grey."""

    def __init__(self) -> None:
        object.__setattr__(self, "asked", [])

    def pixels(self, latents: torch.Tensor, scale: float, labels: Labels | None = None) -> Pixels:
        self.asked.append((latents, scale, labels))
        return torch.full((len(latents), 1, 6, 7), 128, dtype=torch.uint8)


# Number 4 says most, then number 1, whatever the moments of the posteriors.
KL = torch.tensor([0.0, 5.0, 0.1, 0.2, 7.0, 0.3]).reshape(2, 1, 3)


def posteriors(count: int = 40) -> tuple[torch.Tensor, torch.Tensor]:
    """Two channels on a grid of one by three; number 5 varies most, then number 2; 0 is still."""
    spread = torch.tensor([0.0, 0.2, 2.0, 0.1, 0.3, 3.0]).reshape(2, 1, 3)
    noise = torch.randn(count, 2, 1, 3, generator=torch.Generator().manual_seed(0))
    own_log_variance = -torch.log(1 + 100 * spread**2)
    stored = own_log_variance + 2 * np.log(SCALE)
    return SCALE * spread * noise, stored.expand(count, -1, -1, -1).contiguous()


def test_changing_a_dimension_changes_only_that() -> None:
    starts = torch.randn(2, 3, 1, 4, generator=torch.Generator().manual_seed(1))
    values = torch.tensor([-7.0, 8.0, 9.0])
    for dimension in range(12):
        moved = traversed(starts, dimension, values)
        assert moved.shape == (2, 3, 3, 1, 4)
        changed = moved != starts[:, None]
        others = torch.arange(12) != dimension
        assert not changed.flatten(2)[:, :, others].any()
        np.testing.assert_array_equal(
            moved.flatten(2)[:, :, dimension], values.expand(2, -1).numpy()
        )


def test_variances_are_told_in_own_units() -> None:
    points = SCALE * torch.tensor([[1.0, 4.0, 0.0], [3.0, 4.0, 6.0]])[:, None, None]
    np.testing.assert_allclose(variances(points, SCALE), [[[1.0, 0.0, 9.0]]])


def test_the_picture_shows_the_largest_first_and_moves_each_alone(tmp_path: Path) -> None:
    means, log_variances = posteriors()
    labels = torch.arange(40) % 4
    first = Watched()
    caption = draw_traversals(
        tmp_path, first, means, log_variances, SCALE, labels, CPU, kl=KL, dimensions=2
    )
    (starts, scale, classes), *moves = first.asked
    torch.testing.assert_close(starts, means[[0, 13, 26]])
    assert scale == SCALE
    assert classes.tolist() == [0, 1, 2]
    assert [moved for moved in (4, 1)] == [_moved(starts, latents) for latents, _, _ in moves]
    for (latents, _, given), dimension in zip(moves, (4, 1), strict=True):
        assert given.tolist() == sorted(classes.tolist() * STEPS)
        values = latents.flatten(1)[:, dimension].reshape(STARTS, STEPS)
        numbers = means.flatten(1)[:, dimension]
        variance = numbers.var(correction=0) + log_variances.flatten(1)[0, dimension].exp()
        expected = numbers.mean() + variance.sqrt() * torch.linspace(-REACH, REACH, STEPS)
        torch.testing.assert_close(values, expected.expand(STARTS, -1))
    assert "the 2 of 6" in caption and "KL in nats" in caption
    assert "2 standard deviations" in caption
    with Image.open(tmp_path / "traversals.png") as picture:
        # Six by seven pixels, nine times enlarged: the image and its steps in a row.
        assert picture.width > (1 + STEPS) * 7 * 9
        assert picture.height > 2 * STARTS * 6 * 9


def _moved(starts: torch.Tensor, latents: torch.Tensor) -> int:
    """The one number in which the latents differ from their starts."""
    changed = latents.reshape(STARTS, STEPS, -1) != starts.flatten(1)[:, None]
    [[dimension]] = changed.flatten(0, 1).any(dim=0).nonzero().tolist()
    return dimension


def test_points_are_ordered_by_variance(tmp_path: Path) -> None:
    means, _ = posteriors()
    points = Watched()
    caption = draw_traversals(
        tmp_path, points, means, None, SCALE, None, CPU, kl=None, dimensions=3
    )
    assert [_moved(means[[0, 13, 26]], asked[0]) for asked in points.asked[1:]] == [5, 2, 4]
    assert "variance" in caption and "nats" not in caption


def test_equal_latents_give_equal_bytes(tmp_path: Path) -> None:
    means, log_variances = posteriors()
    written = []
    for _ in range(2):
        draw_traversals(tmp_path, Watched(), means, log_variances, SCALE, None, CPU, kl=KL)
        written.append((tmp_path / "traversals.png").read_bytes())
    assert written[0] == written[1]
