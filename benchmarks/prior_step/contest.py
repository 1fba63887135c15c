"""Forward, backward and AdamW, for the same codes, in the precision this machine is fastest at.

Operations of a token: six for every weight of a matrix (a product forward, two backward), and those
of attention, 12 layers * width * tokens / 2 since it is causal.
"""

from collections.abc import Callable

import torch

from benchmarks.side_by_side.ceiling import ceiling_contender
from benchmarks.side_by_side.contest import Contender, Contest, ours_and_compiled
from benchmarks.side_by_side.language_models import llama, llama_loss, x_transformer
from benchmarks.side_by_side.prior_model import CODES, make_prior, matrix_weights
from benchmarks.side_by_side.prior_run import PriorRun, language_model_peers
from benchmarks.side_by_side.training_step import STEPS_IN_A_ROW, compiled_forward, training_step

__all__ = ["step_contest"]


def step_contest(run: PriorRun) -> Contest:
    """All priors at one number of tokens."""
    size, batch, seed, device = run.size, run.batch, run.seed, run.device
    generator = torch.Generator().manual_seed(seed)
    codes = torch.randint(CODES, (batch, size.rows, size.columns), generator=generator)
    codes = codes.to(device)
    prior = make_prior(size, seed).to(device)
    labels = torch.arange(batch, device=device) % prior.num_classes
    weights = sum(weight.numel() for weight in matrix_weights(prior))
    flop = 6 * weights + 6 * size.layers * size.width * size.tokens
    flat = codes.flatten(1)

    def llama_step(compile: bool) -> Callable[[], object]:
        model = llama(size).to(device)
        forward = compiled_forward(model, device) if compile else model
        return training_step(model, lambda: llama_loss(forward, flat), device)

    def x_transformer_step() -> Callable[[], object]:
        model = x_transformer(size).to(device)
        return training_step(model, lambda: model(flat), device)

    plain = training_step(prior, lambda: prior(codes, labels), device)
    compiled = None
    if run.compile:
        other = make_prior(size, seed).to(device)
        forward = compiled_forward(other, device)
        compiled = training_step(other, lambda: forward(codes, labels), device)
    return Contest(
        f"training step of a prior, {size.layers} layers of {size.width}",
        f"batch {batch}, {size.tokens} tokens",
        "tokens",
        (
            *ours_and_compiled(Contender("ours", "ours", plain, run.amount), compiled),
            ceiling_contender(flop, device),
            *language_model_peers(run, "transformers Llama", llama_step, x_transformer_step),
        ),
        STEPS_IN_A_ROW,
        device,
    )
