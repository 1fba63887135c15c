"""Grids in a row: nothing is lost, and places that coincide are known as the same."""

import torch

from stages.nn.code_grids import grids_of_row, place_embeddings, row_of_grids

PARTS = ((1, 2), (3, 4), (2, 5))
WIDTH = 6


def test_a_row_and_its_grids_are_inverses():
    row = torch.arange(3 * 24).view(3, 1, 24)
    grids = grids_of_row(row, PARTS)
    assert [tuple(grid.shape) for grid in grids] == [(3, *part) for part in PARTS]
    assert torch.equal(row_of_grids(grids), row)
    assert grids[1][0].tolist() == [[2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 12, 13]]


def learned(rows, columns, parts):
    generator = torch.Generator().manual_seed(0)
    return (
        torch.randn(rows, 1, WIDTH, generator=generator),
        torch.randn(1, columns, WIDTH, generator=generator),
        torch.randn(parts, WIDTH, generator=generator),
    )


def test_a_coarse_cell_has_the_mean_place_of_the_cells_it_covers():
    rows, columns, of_part = learned(4, 6, 2)
    places = place_embeddings(rows, columns, of_part, ((2, 3), (4, 6)))
    coarse, fine = places[:6].view(2, 3, WIDTH), places[6:].view(4, 6, WIDTH)
    torch.testing.assert_close(fine, rows + columns + of_part[1])
    for row in range(2):
        for column in range(3):
            covered = fine[2 * row : 2 * row + 2, 2 * column : 2 * column + 2].mean(dim=(0, 1))
            torch.testing.assert_close(coarse[row, column] - of_part[0], covered - of_part[1])


def test_the_codes_of_a_stack_share_their_cell():
    rows, columns, of_part = learned(2, 3, 3)
    places = place_embeddings(rows, columns, of_part, ((2, 3),) * 3).view(3, 6, WIDTH)
    own = places - of_part[:, None]
    torch.testing.assert_close(own[1], own[0])
    torch.testing.assert_close(own[2], (rows + columns).flatten(0, 1))
