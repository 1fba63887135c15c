"""Both stacks: what they see, and that a cache sees the same."""

import pytest
import torch

from stages.nn.gated_stacks import GatedStacks

BATCH, LAYERS, WIDTH, ROWS, COLUMNS = 2, 3, 4, 3, 5


def stacks(kernel_size=3, layers=LAYERS):
    torch.manual_seed(0)
    network = GatedStacks(layers, WIDTH, kernel_size, dropout=0.0)
    for parameter in network.parameters():
        parameter.data.add_(0.2 * torch.randn_like(parameter))
    return network.eval()


def told(layers=LAYERS):
    return torch.randn(BATCH, layers, 2, 2 * WIDTH)


def test_a_state_sees_all_cells_before_its_own_and_no_other():
    """Enough layers see everything: there is no blind spot on the right above."""
    network, biases = stacks(layers=COLUMNS + 1), told(COLUMNS + 1)
    cells = torch.randn(BATCH, WIDTH, ROWS, COLUMNS, requires_grad=True)
    states = network(cells, biases).flatten(2)
    for index in range(ROWS * COLUMNS):
        [gradient] = torch.autograd.grad(
            states[:, :, index].square().sum(), cells, retain_graph=True
        )
        seen = gradient.abs().sum(dim=1).flatten(1) > 0
        assert seen[:, :index].all() and not seen[:, index:].any()


def test_one_layer_reaches_half_a_kernel_above_and_to_the_left():
    network, biases = stacks(kernel_size=5, layers=1), told(1)
    cells = torch.randn(BATCH, WIDTH, 5, 7, requires_grad=True)
    [gradient] = torch.autograd.grad(network(cells, biases)[0, :, 4, 3].square().sum(), cells)
    seen = gradient[0].abs().sum(dim=0) > 0
    expected = torch.zeros(5, 7, dtype=torch.bool)
    expected[1:4, 1:6] = True
    expected[4, :3] = True
    assert torch.equal(seen, expected)


@pytest.mark.parametrize("kernel_size", [3, 5])
@torch.no_grad()
def test_a_cache_filled_cell_by_cell_gives_the_states_of_the_whole(kernel_size):
    network, biases = stacks(kernel_size), told()
    cells = torch.randn(BATCH, WIDTH, ROWS, COLUMNS)
    states = network(cells, biases)
    cache = network.new_cache(biases, ROWS, COLUMNS)
    for row in range(ROWS):
        cache.start_row(row, cells[:, :, row - 1 : row] if row else None)
        for column in range(COLUMNS):
            left = cells[:, :, row : row + 1, column - 1 : column] if column else None
            state = cache.cell(column, left)
            torch.testing.assert_close(state, states[:, :, row, column], rtol=1e-4, atol=1e-5)


def test_the_horizontal_stack_starts_as_its_inputs():
    network = GatedStacks(LAYERS, WIDTH, 3, dropout=0.0)
    cells = torch.randn(BATCH, WIDTH, ROWS, COLUMNS)
    states = network(cells, told())
    assert torch.equal(states[:, :, :, 1:], cells[:, :, :, :-1])
    assert not states[:, :, :, 0].any()
