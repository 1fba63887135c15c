"""A block starts as the identity, however deep, and still learns."""

import torch

from stages.nn.residual import residual_blocks


def test_any_depth_is_the_identity_before_training():
    maps = torch.randn(2, 6, 3, 5)
    deep = torch.nn.Sequential(*residual_blocks(6, 20))
    assert torch.equal(deep(maps), maps)


def test_the_first_steps_reach_every_weight():
    (block,) = residual_blocks(6, 1)
    before = {name: value.clone() for name, value in block.named_parameters()}
    optimizer = torch.optim.SGD(block.parameters(), lr=0.1)
    for _ in range(2):
        optimizer.zero_grad()
        (block(torch.randn(2, 6, 3, 5)) ** 2).mean().backward()
        optimizer.step()
    assert all(not torch.equal(before[name], value) for name, value in block.named_parameters())


def test_a_kernel_of_one_sees_no_neighbours():
    for kernel_size, seen in ((1, 1), (3, 9)):
        (block,) = residual_blocks(6, 1, kernel_size)
        torch.nn.init.normal_(block.branch[-1].weight)
        maps = torch.randn(1, 6, 5, 7, requires_grad=True)
        (gradient,) = torch.autograd.grad(block(maps)[0, :, 2, 3].sum(), maps)
        assert (gradient.abs().sum(dim=1) > 0).sum() == seen
