"""Places of cells."""

import torch

from stages.nn.code_grids import place_embeddings
from stages.nn.grid_places import GridPlaces


def test_a_place_of_one_grid_is_its_row_and_its_column():
    places = GridPlaces(((2, 3),), width=5)
    assert len(list(places.parameters())) == 2
    for index, place in enumerate(places()):
        assert torch.equal(place, places.rows[index // 3, 0] + places.columns[0, index % 3])


def test_several_grids_share_rows_and_columns():
    grids = ((1, 2), (2, 4))
    places = GridPlaces(grids, width=5)
    assert places().shape == (10, 5)
    expected = place_embeddings(places.rows, places.columns, places.parts, grids)
    assert torch.equal(places(), expected)
