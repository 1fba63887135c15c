"""Compiled steps are recorded as a graph too, and draw what others draw but for rounding."""

import torch

from stages.core.sections import validate
from stages.sampling.draw import GROUP, Sampler
from stages.sampling.options import SamplingOptions
from tests.gpu.the_gpu import gpu
from tests.priors.test_contract import build
from tests.sampling.test_draw import OPTIONS

__all__ = ["as_graph", "decode"]


def as_graph(sampler):
    [graph] = sampler._walk._graphs.values()
    return graph is not None


def decode(latents, labels, indices):
    return latents.flatten(1)[:, :1, None, None].to(torch.uint8)


def draw(prior, **settings):
    options = validate(SamplingOptions, OPTIONS | settings, source="test")
    sampler = Sampler(prior, decode, options, gpu())
    latents = sampler.draw(0, 2 * GROUP).latents
    assert as_graph(sampler)
    return latents


def main():
    prior = build("transformer", "codes").to(gpu())
    guided = {"guidance": 1.5, "guidance_schedule": "cosine", "top_k": 3}
    for settings in ({"guidance": 1.0}, guided):
        one, two = (draw(prior, compile=compile, **settings) for compile in (True, False))
        assert (one != two).mean() < 0.02, settings


if __name__ == "__main__":
    main()
