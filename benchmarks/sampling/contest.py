"""Whole images of codes from one class each, at temperature 1, without truncation or guidance.

Everyone's weights and cache are in the precision this machine is fastest at.

The ceiling does what no sampler can do without: every matrix product of a step, weights packed
where ours are, and reading the keys and values of half the tokens (their mean number) once.
Choosing codes, norms, rotations and the calls themselves cost it nothing.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.side_by_side.ceiling import fastest_precision
from benchmarks.side_by_side.contest import Contender, Contest, ours_and_compiled
from benchmarks.side_by_side.language_models import llama_sampler, x_transformer_sampler
from benchmarks.side_by_side.peers import peer
from benchmarks.side_by_side.prior_model import PriorSize, make_prior, matrix_weights
from stages.core.devices import Precision
from stages.heads.base import SamplerSettings
from stages.nn.packed_linear import packed
from stages.nn.stepping import StepSettings, with_steps

__all__ = ["sampling_contest"]

_CEILING_STEPS = 8


def sampling_contest(size: PriorSize, batch: int, seed: int, *, compile: bool) -> Contest:
    """All samplers at one batch and number of tokens.

    Args:
        size: Of the prior.
        batch: Images at once.
        seed: Of weights and inputs.
        compile: Whether ours is compiled; as it stands it then is one of the others.
    """
    amount = batch * size.tokens
    precision: Precision = "bfloat16" if fastest_precision() == torch.bfloat16 else "float32"
    plain = our_sampler(size, batch, seed, StepSettings(precision))
    compiled = None
    if compile:
        compiled = our_sampler(size, batch, seed, StepSettings(precision, compile=True))
    return Contest(
        f"sampling, {size.layers} layers of {size.width}",
        f"batch {batch}, {size.tokens} tokens",
        "tokens",
        (
            *ours_and_compiled(Contender("ours", "ours", plain, amount), compiled),
            Contender(
                "products of a step + reading the cache",
                "ceiling",
                _products_and_reads(size, batch, seed),
                batch * _CEILING_STEPS,
            ),
            peer(
                "transformers Llama, static cache",
                "transformers",
                lambda: llama_sampler(size, batch),
                amount,
            ),
            peer(
                "x-transformers",
                "x-transformers",
                lambda: x_transformer_sampler(size, batch),
                amount,
            ),
        ),
    )


def our_sampler(
    size: PriorSize, batch: int, seed: int, steps: StepSettings
) -> Callable[[], object]:
    """`sample` of the member, classes in turn; what is to be compiled is compiled already."""
    prior = with_steps(make_prior(size, seed).eval(), steps, torch.device("cpu"))
    labels = torch.arange(batch) % prior.num_classes
    uniforms = torch.rand(batch, *prior.noise_shape)

    @torch.inference_mode()
    def run() -> object:
        return prior.sample(labels, uniforms, SamplerSettings())

    if steps.compile:
        run()
    return run


def _products_and_reads(size: PriorSize, batch: int, seed: int) -> Callable[[], object]:
    precision = fastest_precision()
    weights = [weight.to(precision) for weight in matrix_weights(make_prior(size, seed))]
    layers = [_layer(weight) for weight in weights]
    inputs = [torch.randn(batch, weight.shape[1]).to(precision) for weight in weights]
    cache = torch.randn(size.layers, 2, batch, max(1, size.tokens // 2), size.width).to(precision)
    # Read as integers: a sum of bfloat16 is bound by its arithmetic, not by memory.
    read = cache.view(torch.int32)

    @torch.inference_mode()
    def run() -> None:
        for _ in range(_CEILING_STEPS):
            for layer, rows in zip(layers, inputs, strict=True):
                layer(rows)
            read.max()

    return run


def _layer(weight: Tensor) -> nn.Module:
    layer = nn.Linear(*reversed(weight.shape), bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return packed(layer)
