"""Views keep the images' shape and do what their names say."""

from typing import get_args

import pytest
import torch

from stages.encoding.views import VIEWS
from stages.stores.latent_format import View

HEIGHT, WIDTH = 32, 48
MOVED = {
    "up_left": (slice(2, None), slice(3, None)),
    "up_right": (slice(2, None), slice(None, -3)),
    "down_left": (slice(None, -2), slice(3, None)),
    "down_right": (slice(None, -2), slice(None, -3)),
}


@pytest.fixture
def images():
    return torch.rand(2, 3, HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0))


def test_every_view_a_data_set_may_name_can_be_made():
    assert set(VIEWS) == set(get_args(View))


@pytest.mark.parametrize("name", VIEWS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (2, 1, 1, 5), (1, 1, 8, 8), (2, 3, 28, 28)])
def test_any_image_keeps_its_shape(name, shape):
    seen = VIEWS[name](torch.rand(shape))

    assert seen.shape == shape
    assert seen.min() >= 0 and seen.max() <= 1


def test_the_identity_and_the_mirror(images):
    assert torch.equal(VIEWS["identity"](images), images)
    assert torch.equal(VIEWS["horizontal_flip"](images)[..., 0], images[..., -1])


@pytest.mark.parametrize("direction", MOVED)
def test_a_shift_moves_by_a_sixteenth_and_a_flip_comes_before_it(images, direction):
    rows, columns = MOVED[direction]
    back = MOVED[
        "_".join(
            {"up": "down", "down": "up", "left": "right", "right": "left"}[part]
            for part in direction.split("_")
        )
    ]

    for name, source in (("shift", images), ("flip_shift", images.flip(-1))):
        moved = VIEWS[f"{name}_{direction}"](source if name == "shift" else images)
        assert torch.equal(moved[..., back[0], back[1]], source[..., rows, columns])


def test_the_edge_a_shift_leaves_is_a_reflection(images):
    moved = VIEWS["shift_down_right"](images)

    assert torch.equal(moved[..., 0, 3:], images[..., 2, :-3])
    assert torch.equal(moved[..., 2:, 0], images[..., :-2, 3])


def test_the_ten_views_of_an_image_are_ten(images):
    seen = [view(images[:1]) for view in VIEWS.values()]

    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])
