"""The network that moves the numbers of a token."""

import torch

from stages.nn.token_mlp import TokenMLP

ROWS, TOKENS, CHANNELS, HIDDEN, WIDTH = 5, 4, 3, 7, 8


def network():
    torch.manual_seed(0)
    return TokenMLP(CHANNELS, HIDDEN, WIDTH, blocks=2)


def inputs():
    return (
        torch.randn(ROWS, TOKENS, CHANNELS),
        torch.rand(ROWS, TOKENS),
        torch.randn(ROWS, TOKENS, HIDDEN),
    )


def loud(module):
    for parameter in module.parameters():
        parameter.data.add_(0.3 * torch.randn_like(parameter))
    return module


def test_it_starts_at_zero():
    numbers, times, hidden = inputs()
    start = network()
    assert (start(numbers, times, start.condition(hidden)) == 0).all()


def test_numbers_time_and_condition_all_matter_and_rows_do_not_meet():
    moved, (numbers, times, hidden) = loud(network()), inputs()
    for part in (numbers, times, hidden):
        part.requires_grad_()
    result = moved(numbers, times, moved.condition(hidden))
    assert result.shape == numbers.shape
    gradients = torch.autograd.grad(result[2, 1].sum(), (numbers, times, hidden))
    for gradient in gradients:
        assert (gradient[2, 1] != 0).all()
        others = gradient.clone()
        others[2, 1] = 0
        assert (others == 0).all()


def test_one_time_for_all_rows_is_each_rows_time():
    moved, (numbers, _, hidden) = loud(network()), inputs()
    condition = moved.condition(hidden)
    torch.testing.assert_close(
        moved(numbers, torch.full((ROWS, TOKENS), 0.3), condition),
        moved(numbers, torch.full((1, 1), 0.3), condition),
    )
