"""The one training loop: AdamW, EMA weights, validation, early stopping, exact resume.

Everything random in step t is a function of (seed, t): the rows of the batch, the noise, dropout.
So the state of a training is its step, weights, optimiser moments and averages; nothing else has
to be saved, and twice half a run is bit for bit one whole run.
"""

import math
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from stages.core.devices import autocast, resolve_precision
from stages.core.errors import DivergenceError
from stages.core.progress import progress
from stages.core.randomness import permutation, seed_everything, torch_stream
from stages.core.stage import Run
from stages.nn.ema import WeightAverage
from stages.training.checkpoint import read_checkpoint, write_checkpoint
from stages.training.optimization import learning_rate, make_optimizer
from stages.training.options import TrainingOptions
from stages.training.task import Task

__all__ = ["Fitted", "fit"]

# How often the loss is looked at (one device synchronisation) and curves get a point.
LOG_EVERY = 20
# So many steps in a row may be skipped; the next is taken, clipped, whatever its norm: a threshold
# that gradients have grown past would otherwise end the training without a word.
SKIPS_IN_A_ROW = 10


@dataclass(frozen=True)
class Fitted:
    """The result of a training."""

    module: nn.Module
    """The best weights (averaged, where EMA is on), in evaluation mode."""
    history: pd.DataFrame
    """One row per logged step; no wall times, so that equal runs give equal bytes."""
    best_step: int
    """The step whose weights were kept."""


@dataclass
class _State:
    """All that a checkpoint has to hold beside weights and moments."""

    step: int = 0
    best_step: int = 0
    best_criterion: float = math.inf
    stale_validations: int = 0
    skipped_steps: int = 0
    skipped_in_a_row: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    best_weights: dict[str, Tensor] = field(default_factory=dict)


def fit(
    task: Task, options: TrainingOptions, run: Run, *, seed: int, device: torch.device
) -> Fitted:
    """Train `task.module`, going on from the run's last checkpoint if there is one.

    Args:
        task: Model, data and loss.
        options: How to train.
        run: Where to keep checkpoints and record curves; its stop event is obeyed.
        seed: Root of every random stream of the training.
        device: Where to compute.

    Raises:
        DivergenceError: If loss or gradient is not finite, naming step and last checkpoint.
        Interrupted: After a checkpoint, if the run was asked to stop.
    """
    return _Training(task, options, run, seed, device).run_to_end()


class _Training:
    def __init__(
        self, task: Task, options: TrainingOptions, run: Run, seed: int, device: torch.device
    ) -> None:
        self.task, self.options, self.run, self.seed, self.device = task, options, run, seed, device
        layout = torch.channels_last if options.channels_last else torch.preserve_format
        task.module.to(device=device, memory_format=layout)
        self.optimizer = make_optimizer(task.module, options)
        self.average = WeightAverage(task.module, options.ema_decay)
        self.dtype = resolve_precision(options.precision, device)
        self.state = _State()
        self.recent: dict[str, list[Tensor]] = defaultdict(list)
        self.shown: dict[str, float] = {}
        self.checkpoint_time = time.monotonic()
        self._order: tuple[int, np.ndarray] | None = None

    def run_to_end(self) -> Fitted:
        if not self._resume():
            self.task.start(self.device, torch_stream(self.seed, "start", device=self.device))
            self.average = WeightAverage(self.task.module, self.options.ema_decay)
        # Compiled after loading: the wrapper shares the module's weights.
        module = torch.compile(self.task.module) if self.options.compile else self.task.module
        steps = self.options.steps
        with progress(steps, self.state.step, "step", self.run.stage) as bar:
            while self.state.step < steps and not self._is_exhausted():
                self._train_step(module)
                bar.advance(1, **self.shown)
                if self.state.step % self.options.validate_every == 0 or self.state.step == steps:
                    self._validate()
                self._checkpoint_if_due()
        return self._finish()

    def _train_step(self, module: nn.Module) -> None:
        step, options = self.state.step, self.options
        seed_everything(self.seed, "step", step)
        generator = torch_stream(self.seed, "batch noise", step, device=self.device)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, options)
        self.task.module.train()
        batch = self.task.batch(self._rows(step), self.device)
        with autocast(self.dtype, self.device):
            loss, figures = self.task.loss(module, batch, generator, step)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.task.module.parameters(), options.gradient_clip)
        # A non-finite norm is caught before the step: the weights at hand stay usable.
        if not torch.isfinite(norm + loss.detach()):
            raise DivergenceError(self._divergence(step, loss.item(), norm.item()))
        if self._is_skipped(norm.item()):
            self.state.skipped_steps += 1
            self.state.skipped_in_a_row += 1
        else:
            self.state.skipped_in_a_row = 0
            self.optimizer.step()
        self.state.step += 1
        extra = self.task.after_step(
            torch_stream(self.seed, "after step", step, device=self.device)
        )
        self.average.update(self.task.module, self.state.step)
        for name, value in {"loss": loss, "gradient_norm": norm, **figures}.items():
            self.recent[name].append(value.detach())
        if self.state.step % LOG_EVERY == 0 or self.state.step == options.steps or extra:
            self._log(extra)

    def _is_skipped(self, norm: float) -> bool:
        options, state = self.options, self.state
        too_steep = 0 < options.skip_above_norm < norm
        warm = state.step >= options.warmup_steps
        return too_steep and warm and state.skipped_in_a_row < SKIPS_IN_A_ROW

    def _rows(self, step: int) -> np.ndarray:
        """Rows of the step's batch: consecutive pieces of one shuffled order per epoch.

        The last, short piece of an epoch is completed from the order of the next.
        """
        count, size = self.task.num_examples, self.options.batch_size
        places = np.arange(step * size, (step + 1) * size)
        epochs = places // count
        rows = np.empty(size, dtype=np.int64)
        for epoch in np.unique(epochs):
            chosen = epochs == epoch
            rows[chosen] = self._epoch_order(int(epoch))[places[chosen] % count]
        return rows

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order is None or self._order[0] != epoch:
            order = permutation(self.task.num_examples, self.seed, "epoch", epoch)
            self._order = (epoch, order)
        return self._order[1]

    def _log(self, extra: dict[str, float]) -> None:
        row = {name: torch.stack(values).mean().item() for name, values in self.recent.items()}
        self.recent.clear()
        row["learning_rate"] = learning_rate(self.state.step - 1, self.options)
        if self.options.skip_above_norm:
            row["skipped_steps"] = float(self.state.skipped_steps)
        row |= extra
        self.shown = {"loss": row["loss"]}
        self._record(row)

    def _record(self, figures: dict[str, float]) -> None:
        history, step = self.state.history, self.state.step
        if history and history[-1]["step"] == step:
            history[-1] |= figures
        else:
            history.append({"step": step, **figures})
        self.run.tracker.log_metrics(figures, step=step)

    def _validate(self) -> None:
        module = self._judged_module()
        module.eval()
        seed_everything(self.seed, "validation")
        with torch.inference_mode():
            validation = self.task.validate(module, self.device, self.state.step)
        if not math.isfinite(validation.criterion):
            raise DivergenceError(self._divergence(self.state.step, validation.criterion, math.nan))
        self._record({f"validation_{k}": v for k, v in validation.figures.items()})
        if validation.criterion < self.state.best_criterion:
            self.state.best_criterion = validation.criterion
            self.state.best_step = self.state.step
            self.state.stale_validations = 0
            if self.options.patience:
                self.state.best_weights = {
                    name: tensor.detach().cpu().clone()
                    for name, tensor in module.state_dict().items()
                }
        else:
            self.state.stale_validations += 1

    def _judged_module(self) -> nn.Module:
        return self.average.module if self.options.ema_decay else self.task.module

    def _is_exhausted(self) -> bool:
        return 0 < self.options.patience <= self.state.stale_validations

    def _divergence(self, step: int, loss: float, norm: float) -> str:
        saved = read_checkpoint(self.run.work)
        last = f"step {saved['state']['step']} in {self.run.work}" if saved else "none yet"
        return (
            f"training diverged at step {step}: loss and gradient norm must be finite, are {loss} "
            f"and {norm}; last good checkpoint: {last}. Lower learning_rate or gradient_clip, "
            "or lengthen warmup_steps, and run again"
        )

    def _checkpoint_if_due(self) -> None:
        stopping = self.run.stop.is_set()
        due = time.monotonic() - self.checkpoint_time >= self.options.checkpoint_seconds
        if stopping or due:
            self._checkpoint()
            self.run.raise_if_stopped()

    def _checkpoint(self) -> None:
        state: dict[str, Any] = {
            "module": self.task.module.state_dict(),
            "average": self.average.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "recent": dict(self.recent),
            "task": self.task.state(),
            "state": vars(self.state),
        }
        write_checkpoint(self.run.work, state)
        self.checkpoint_time = time.monotonic()

    def _resume(self) -> bool:
        saved = read_checkpoint(self.run.work)
        if saved is None:
            return False
        self.task.module.load_state_dict(saved["module"])
        self.average.module.load_state_dict(saved["average"])
        self.optimizer.load_state_dict(saved["optimizer"])
        self.recent = defaultdict(list, saved["recent"])
        self.state = _State(**saved["state"])
        self.task.load_state(saved["task"])
        return True

    def _finish(self) -> Fitted:
        # The last step is safe before anything else can fail (writing outputs, a full disk).
        self._checkpoint()
        module = self._judged_module()
        best = self.state.step
        if self.state.best_weights:
            module.load_state_dict(self.state.best_weights)
            best = self.state.best_step
        return Fitted(module.eval(), pd.DataFrame(self.state.history), best)
