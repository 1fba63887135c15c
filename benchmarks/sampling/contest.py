"""Whole images of codes from one class each, at temperature 1, without truncation or guidance.

Everyone's weights and cache are in the precision this machine is fastest at. Where that is float32,
ours with both in bfloat16, and everything else in float32, stands beside it.

The ceiling does what no sampler can do without: every matrix product of a step, by the libraries of
PyTorch with weights packed for them, and reading the keys and values of half the tokens (their mean
number) once. Choosing codes, norms, rotations and the calls themselves cost it nothing. Kernels
that are better than those libraries' at few rows may surpass it.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from benchmarks.side_by_side.ceiling import fastest_precision
from benchmarks.side_by_side.contest import Contender, Contest, ours_and_compiled
from benchmarks.side_by_side.language_models import llama_sampler, x_transformer_sampler
from benchmarks.side_by_side.prior_model import PriorSize, make_prior, matrix_weights
from benchmarks.side_by_side.prior_run import PriorRun, language_model_peers
from stages.core.devices import Precision
from stages.heads.base import SamplerSettings
from stages.nn.cuda_graph import Replayed
from stages.nn.kernels.packed_linear import packed
from stages.nn.stepping import StepSettings, with_steps

__all__ = ["sampling_contest"]

_CEILING_STEPS = 64
"""A short walk: of few steps the first, which fetches the weights, would count for too much."""


def sampling_contest(run: PriorRun) -> Contest:
    """All samplers at one batch and number of tokens."""
    size, batch, seed, device = run.size, run.batch, run.seed, run.device
    bfloat16 = fastest_precision(device) == torch.bfloat16
    precision: Precision = "bfloat16" if bfloat16 else "float32"

    def ours(precision: Precision, compile: bool = False) -> Callable[[], object]:
        return our_sampler(size, batch, seed, StepSettings(precision, compile), device)

    plain = Contender("ours", "ours", ours(precision), run.amount)
    compiled = ours(precision, compile=True) if run.compile else None
    halved = ()
    if run.compile and not bfloat16:
        name = "ours, compiled, weights and cache in bfloat16"
        halved = (Contender(name, "peer", ours("bfloat16", compile=True), run.amount),)
    return Contest(
        f"sampling, {size.layers} layers of {size.width}",
        f"batch {batch}, {size.tokens} tokens",
        "tokens",
        (
            *ours_and_compiled(plain, compiled),
            *halved,
            Contender(
                "products of a step + reading the cache",
                "ceiling",
                _products_and_reads(size, batch, seed, device),
                batch * _CEILING_STEPS,
            ),
            *language_model_peers(
                run,
                "transformers Llama, static cache",
                lambda compile: llama_sampler(size, batch, device, compile=compile),
                lambda: x_transformer_sampler(size, batch, device),
            ),
        ),
        device=device,
    )


def our_sampler(
    size: PriorSize, batch: int, seed: int, steps: StepSettings, device: torch.device
) -> Callable[[], object]:
    """`sample` of the member, classes in turn, as samplers call it.

    What is to be compiled or recorded already is.
    """
    prior = with_steps(make_prior(size, seed).eval().to(device), steps, device)
    labels = torch.arange(batch, device=device) % prior.num_classes
    uniforms = torch.rand(batch, *prior.noise_shape, device=device)
    walk = Replayed(lambda labels, uniforms: prior.sample(labels, uniforms, SamplerSettings()))

    @torch.inference_mode()
    def run() -> object:
        return walk(labels, uniforms)

    for _ in range(2 if device.type == "cuda" else int(steps.compile)):
        run()
    return run


def _products_and_reads(
    size: PriorSize, batch: int, seed: int, device: torch.device
) -> Callable[[], object]:
    precision = fastest_precision(device)
    weights = [weight.to(device, precision) for weight in matrix_weights(make_prior(size, seed))]
    layers = [_layer(weight) for weight in weights]
    inputs = [torch.randn(batch, weight.shape[1]).to(device, precision) for weight in weights]
    shape = (size.layers, 2, batch, max(1, size.tokens // 2), size.width)
    cache = torch.randn(shape).to(device, precision)
    # Read as integers: a sum of bfloat16 is bound by its arithmetic, not by memory.
    read = cache.view(torch.int32)

    def steps(read: Tensor) -> Tensor:
        for _ in range(_CEILING_STEPS):
            for layer, rows in zip(layers, inputs, strict=True):
                layer(rows)
            found = read.max()
        return found

    walk = Replayed(steps) if device.type == "cuda" else steps

    @torch.inference_mode()
    def run() -> None:
        walk(read)

    if device.type == "cuda":
        # Recorded by the second, as ours is.
        for _ in range(2):
            run()
    return run


def _layer(weight: Tensor) -> nn.Module:
    layer = nn.Linear(*reversed(weight.shape), bias=False)
    layer.weight = nn.Parameter(weight, requires_grad=False)
    return packed(layer)
