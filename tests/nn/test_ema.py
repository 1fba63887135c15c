"""The weight average against its recurrence."""

import torch
from torch import nn

from stages.nn.ema import WeightAverage


def test_follows_the_recurrence_with_warm_up():
    module = nn.BatchNorm1d(3)
    average = WeightAverage(module, decay=0.5)
    expected = module.weight.detach().clone()
    for step in range(1, 20):
        with torch.no_grad():
            module.weight.add_(step)
            module.num_batches_tracked.add_(1)
        average.update(module, step)
        decay = min(0.5, (1 + step) / (10 + step))
        expected = decay * expected + (1 - decay) * module.weight.detach()
    torch.testing.assert_close(average.module.weight, expected)
    assert average.module.num_batches_tracked.item() == 19
    assert not average.module.training and not average.module.weight.requires_grad
