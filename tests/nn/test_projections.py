"""Latents of either layout, and back to the features' shape."""

import pytest
import torch

from stages.core.shapes import FeatureShape
from stages.nn.projections import features_from_latents, grid_shape, latents_from_features

FEATURES = FeatureShape(6, 3, 5)


@pytest.mark.parametrize(("layout", "grid"), [("spatial", (3, 5)), ("vector", (1, 1))])
def test_shapes_there_and_back(layout, grid):
    features = torch.randn(2, *FEATURES)
    latents = latents_from_features(layout, FEATURES, 4)(features)
    assert grid_shape(layout, FEATURES) == grid
    assert latents.shape == (2, 4, *grid)
    assert features_from_latents(layout, FEATURES, 4)(latents).shape == features.shape


def test_a_vector_sees_every_cell_and_a_map_only_its_own():
    for layout, seen in (("vector", 3 * 5), ("spatial", 1)):
        features = torch.randn(1, *FEATURES, requires_grad=True)
        latents_from_features(layout, FEATURES, 4)(features)[0, 0, 0, 0].backward()
        assert features.grad.abs().sum(dim=1).count_nonzero() == seen
