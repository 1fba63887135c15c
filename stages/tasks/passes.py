"""Fitting without gradients: a start from data, then passes over the training latents.

For priors that say so (`Prior.passes`): whole passes of expectation maximisation in the place of
steps. A pass is a function of the latents and of the parameters before it, so a killed fit goes on
after its last whole pass and ends with the same bytes. Validation follows every pass, and the best
pass is kept: more passes fit the training latents better, not always the others.

A prior that learns nothing has no passes; it is judged on the same split.
"""

import math
from dataclasses import dataclass, field
from typing import Any

import pandas as pd
import torch
from torch import Tensor

from stages.core.randomness import seed_everything, torch_stream
from stages.core.stage import Run
from stages.tasks.prior import PriorTask
from stages.training.checkpoint import read_checkpoint, write_checkpoint
from stages.training.loop import Fitted

__all__ = ["fit_in_passes"]


@dataclass
class _State:
    done: int = 0
    best: int = 0
    best_criterion: float = math.inf
    last_nats: float = math.inf
    converged: bool = False
    history: list[dict[str, float]] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def fit_in_passes(task: PriorTask, run: Run, *, device: torch.device) -> Fitted:
    """Fit `task.module`, going on after the run's last whole pass if there is one.

    Args:
        task: The prior and its latents.
        run: Where to keep checkpoints and record curves; its stop event is obeyed.
        device: Where to compute.

    Raises:
        Interrupted: After a checkpoint, if the run was asked to stop.
    """
    prior = task.module.to(device).eval()
    plan, state = prior.passes, _State()
    saved = None if plan is None else read_checkpoint(run.work)
    if saved is not None:
        prior.load_state_dict(saved["module"])
        state = _State(**saved["state"])
    else:
        if plan is not None:
            start = torch_stream(task.seed, "k-means", device=device)
            prior.start_from_data(*task.start_latents(device), start)
        _judge(task, state, {}, run, device)
    while plan is not None and state.done < plan.most and not state.converged:
        nats = prior.fit_pass(task.pieces(plan.draws, device))
        state.done += 1
        _judge(task, state, {"loss": nats / prior.spec.tokens}, run, device)
        state.converged = state.last_nats - nats < plan.tolerance
        state.last_nats = nats
        _checkpoint(task, state, run)
        run.raise_if_stopped()
    if plan is not None:
        prior.load_state_dict(state.best_weights)
    return Fitted(prior, pd.DataFrame(state.history), state.best)


@torch.inference_mode()
def _judge(
    task: PriorTask, state: _State, figures: dict[str, float], run: Run, device: torch.device
) -> None:
    """Validate after a pass, record it, and remember it if it is the best."""
    seed_everything(task.seed, "validation")
    validation = task.validate(task.module, device, state.done)
    figures = figures | {f"validation_{k}": v for k, v in validation.figures.items()}
    state.history.append({"step": state.done, **figures})
    if state.done:
        run.tracker.log_metrics(figures, step=state.done)
    if validation.criterion < state.best_criterion:
        state.best, state.best_criterion = state.done, validation.criterion
        state.best_weights = {k: v.cpu().clone() for k, v in task.module.state_dict().items()}


def _checkpoint(task: PriorTask, state: _State, run: Run) -> None:
    kept: dict[str, Any] = {"module": task.module.state_dict(), "state": vars(state)}
    write_checkpoint(run.work, kept)
