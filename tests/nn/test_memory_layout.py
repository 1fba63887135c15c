"""Weights of four axes are laid out anew, and all others are left alone."""

import torch
from torch import nn

from stages.nn.memory_layout import lay_channels_last


def test_four_axes_become_channels_last_and_five_are_left_alone():
    module = nn.Conv2d(3, 8, 3)
    module.register_buffer("turns", torch.rand(2, 3, 4, 5, 6))
    module.register_buffer("grid", torch.rand(1, 3, 4, 5))
    before = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    weight = module.weight

    lay_channels_last(module)

    assert module.weight is weight
    for tensor in (module.weight, module.grid):
        assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert module.turns.is_contiguous() and module.bias.is_contiguous()
    for name, tensor in module.state_dict().items():
        assert torch.equal(tensor, before[name]), name
