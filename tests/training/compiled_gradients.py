"""Gradients of compiled models are the same bits every time, also with several threads."""

import torch

from benchmarks.autoencoder_step.contest import make_autoencoder
from benchmarks.side_by_side.prior_model import PriorSize, make_prior

TIMES = 6


def gradients(module, loss):
    module.zero_grad()
    torch.manual_seed(0)
    loss().backward()
    return {name: p.grad.clone() for name, p in module.named_parameters() if p.grad is not None}


def of_a_prior():
    prior = make_prior(PriorSize(1, 192, 64), seed=0)
    forward = torch.compile(prior)
    codes, labels = torch.randint(512, (32, 4, 16)), torch.arange(32) % 10
    for _ in range(TIMES):
        yield gradients(prior, lambda: forward(codes, labels))


def of_an_autoencoder():
    """And what its codebook is to follow."""
    autoencoder = make_autoencoder(0)
    forward = torch.compile(autoencoder)
    images = torch.rand(128, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    for _ in range(TIMES):
        stream = torch.Generator().manual_seed(0)
        found = gradients(autoencoder, lambda stream=stream: forward(images, None, stream).loss)
        counts, sums = autoencoder.bottleneck.codebook._step.take()
        autoencoder.bottleneck.codebook._recent = None
        yield found | {"counts": counts, "sums": sums}


def main():
    torch.set_num_threads(2)
    for found in (of_a_prior(), of_an_autoencoder()):
        first = next(found)
        for again in found:
            differ = [name for name in first if not torch.equal(first[name], again[name])]
            assert not differ, differ


if __name__ == "__main__":
    main()
