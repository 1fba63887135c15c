"""AdamW with linear warm-up and decay (Loshchilov & Hutter 2019, arXiv:1711.05101).

rate of the step from t to t + 1:
    peak * (t + 1) / warmup                                             t < warmup
    final + (peak - final) * shape((t - warmup) / (steps - 1 - warmup))     else
shape(u) = (1 + cos(pi u)) / 2  or  1 - u

so that the last warm step has the peak and the last of all the final rate; a single step after the
warm-up has the peak.
"""

import math

import torch
from torch import nn

from stages.training.options import TrainingOptions

__all__ = ["learning_rate", "make_optimizer"]


def learning_rate(step: int, options: TrainingOptions) -> float:
    """Learning rate of the step that leads from `step` to `step + 1`."""
    if step < options.warmup_steps:
        return options.learning_rate * (step + 1) / options.warmup_steps
    progress = (step - options.warmup_steps) / max(1, options.steps - 1 - options.warmup_steps)
    shape = {"cosine": 0.5 * (1 + math.cos(math.pi * progress)), "linear": 1 - progress}
    span = options.learning_rate - options.final_learning_rate
    return options.final_learning_rate + span * shape[options.decay]


def make_optimizer(module: nn.Module, options: TrainingOptions) -> torch.optim.AdamW:
    """AdamW over the module's parameters; decay on weights of two or more axes only.

    Parameters named `codebook` do not decay: entries that no vector chooses would drift to 0.
    """
    decaying: list[nn.Parameter] = []
    steady: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            kernel = parameter.ndim >= 2 and name.rpartition(".")[2] != "codebook"
            (decaying if kernel else steady).append(parameter)
    groups = [
        {"params": decaying, "weight_decay": options.weight_decay},
        {"params": steady, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(
        [group for group in groups if group["params"]],
        lr=options.learning_rate,
        betas=options.betas,
        fused=all(p.device.type in ("cpu", "cuda") for p in decaying + steady),
    )
