"""The one training loop: AdamW, EMA weights, validation, early stopping, exact resume.

Everything random in step t is a function of (seed, t): the rows of the batch, the noise, dropout.
So the state of a training is its step, weights, optimiser moments and averages; nothing else has
to be saved, and twice half a run is bit for bit one whole run.

Several processes share the pieces of every batch (`stages.training.pieces`). They agree on every
number that decides anything, the wish to stop among them: it travels with the figures of a step,
so a signal to one of them ends all after the same step, with a checkpoint that any number goes on
from.
"""

import math
import time
from collections import defaultdict
from dataclasses import dataclass, field
from typing import Any, Literal

import pandas as pd
import torch
from torch import Tensor, nn

from stages.core.allocation import keep_freed_memory
from stages.core.devices import resolve_precision
from stages.core.errors import DivergenceError
from stages.core.progress import progress
from stages.core.randomness import seed_everything, torch_stream
from stages.core.ranks import barrier, from_first, world
from stages.core.stage import Run
from stages.nn.ema import WeightAverage
from stages.nn.memory_layout import lay_channels_last
from stages.nn.processes import sum_over_processes
from stages.training.checkpoint import read_checkpoint, write_checkpoint
from stages.training.optimization import learning_rate, make_optimizer
from stages.training.options import TrainingOptions
from stages.training.order import BatchOrder
from stages.training.pieces import PieceLoss, own_pieces
from stages.training.sharing import make_sharing
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
    task: Task,
    options: TrainingOptions,
    run: Run,
    *,
    seed: int,
    device: torch.device,
    strategy: Literal["ddp", "fsdp"] = "ddp",
) -> Fitted:
    """Train `task.module`, going on from the run's last checkpoint if there is one.

    Args:
        task: Model, data and loss.
        options: How to train.
        run: Where to keep checkpoints and record curves; its stop event is obeyed.
        seed: Root of every random stream of the training.
        device: Where to compute.
        strategy: How several processes share the work.

    Raises:
        DivergenceError: If loss or gradient is not finite, naming step and last checkpoint.
        Interrupted: After a checkpoint, if the run was asked to stop, in whichever process.
    """
    keep_freed_memory()
    return _Training(task, options, run, seed, device, strategy).run_to_end()


class _Training:
    def __init__(
        self,
        task: Task,
        options: TrainingOptions,
        run: Run,
        seed: int,
        device: torch.device,
        strategy: Literal["ddp", "fsdp"] = "ddp",
    ) -> None:
        self.task, self.options, self.run, self.seed, self.device = task, options, run, seed, device
        task.module.to(device)
        if options.channels_last:
            lay_channels_last(task.module)
        self.sharing = make_sharing(strategy, device)
        self.state = _State()
        self.recent: dict[str, list[Tensor]] = defaultdict(list)
        self.shown: dict[str, float] = {}
        self.checkpoint_time = time.monotonic()
        self.agreed = (False, False)
        self.unseen: tuple[int, Tensor, Tensor] | None = None
        saved = from_first(read_checkpoint(run.work) if run.is_first else None)
        if saved is None:
            task.start(device, torch_stream(seed, "start", device=device))
        self.average = WeightAverage(task.module, options.ema_decay)
        self.sharing.split(task.module, self.average.module)
        self.optimizer = make_optimizer(task.module, options)
        if saved is not None:
            self._go_on_from(saved)
        # Wrapped and compiled after loading: the wrapper shares the module's weights.
        self.losses = self.sharing.wrap(
            PieceLoss(
                task,
                BatchOrder(task.num_examples, options.batch_size, seed),
                options.pieces,
                seed=seed,
                device=device,
                dtype=resolve_precision(options.precision, device),
                compile=options.compile,
            )
        )

    def run_to_end(self) -> Fitted:
        steps = self.options.steps
        with progress(steps, self.state.step, "step", self.run.stage) as bar:
            while self.state.step < steps and not self._is_exhausted():
                self._train_step()
                bar.advance(1, **self.shown)
                if self.state.step % self.options.validate_every == 0 or self.state.step == steps:
                    self._validate()
                self._checkpoint_if_due()
        return self._finish()

    def _train_step(self) -> None:
        step, options = self.state.step, self.options
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate(step, options)
        self.task.module.train()
        self.optimizer.zero_grad(set_to_none=True)
        figures = self._pass_pieces(step)
        norm = self.sharing.whole(
            nn.utils.clip_grad_norm_(self.task.module.parameters(), options.gradient_clip)
        )
        self._take(step, figures["loss"], norm)
        self.state.step += 1
        extra = self.task.after_step(
            torch_stream(self.seed, "after step", step, device=self.device)
        )
        self.average.update(self.task.module, self.state.step)
        loss = figures.pop("loss")
        for name, value in {"loss": loss, "gradient_norm": norm, **figures}.items():
            self.recent[name].append(value)
        if self.state.step % LOG_EVERY == 0 or self.state.step == options.steps or extra:
            self._log(extra)

    def _take(self, step: int, loss: Tensor, norm: Tensor) -> None:
        """Move the weights, unless loss or norm forbid it.

        A step that is not finite is not taken: the weights at hand stay usable. A GPU sees to that
        by itself, and is asked a step later: asked at once, it would have nothing to do until the
        processor has prepared the next one.
        """
        self._require_finite()
        self.unseen = (step, loss, norm)
        if self._runs_ahead():
            self.optimizer.found_inf = (~torch.isfinite(norm + loss)).float()
            self.optimizer.step()
            return
        self._require_finite()
        if self._is_skipped(norm.item()):
            self.state.skipped_steps += 1
            self.state.skipped_in_a_row += 1
        else:
            self.state.skipped_in_a_row = 0
            self.optimizer.step()

    def _runs_ahead(self) -> bool:
        """Whether nothing that the processor decides hangs on this step's numbers."""
        alone = world()[1] == 1
        return self.device.type == "cuda" and alone and not self.options.skip_above_norm

    def _require_finite(self) -> None:
        """Look at the last step's numbers, if nobody has yet."""
        if self.unseen is None:
            return
        step, loss, norm = self.unseen
        self.unseen = None
        if not torch.isfinite(norm + loss.to(norm.device)):
            raise DivergenceError(self._divergence(step, loss.item(), norm.item()))

    def _pass_pieces(self, step: int) -> dict[str, Tensor]:
        """Leave the gradient of the step's loss; its figures, the loss among them."""
        pieces = self.options.pieces
        mine = own_pieces(pieces)
        seen: list[dict[str, Tensor]] = []
        for piece in mine:
            with self.sharing.gradients_wait(piece != mine[-1]):
                loss, figures = self.losses(step, piece)
                self.sharing.backward(loss, pieces)
            seen.append({"loss": loss.detach(), **figures})
        own = {name: sum(figures[name] for figures in seen) / pieces for name in seen[0]}
        return self._of_all_processes(own)

    def _of_all_processes(self, figures: dict[str, Tensor]) -> dict[str, Tensor]:
        """The sums of figures over processes; the wishes to stop and to save travel with them."""
        if world()[1] == 1:
            return figures
        numbers = [value.double().to(self.device) for value in figures.values()]
        wishes = torch.tensor(self._wishes(), dtype=torch.float64, device=self.device)
        total = sum_over_processes(torch.cat([torch.stack(numbers), wishes]))
        self.agreed = (total[-2].item() > 0, total[-1].item() > 0)
        return {
            name: number.to(value.dtype)
            for (name, value), number in zip(figures.items(), total, strict=False)
        }

    def _wishes(self) -> tuple[bool, bool]:
        """Whether this process wants to stop, and whether a checkpoint is due by its clock."""
        due = time.monotonic() - self.checkpoint_time >= self.options.checkpoint_seconds
        return self.run.stop.is_set(), due and self.run.is_first

    def _is_skipped(self, norm: float) -> bool:
        options, state = self.options, self.state
        too_steep = 0 < options.skip_above_norm < norm
        warm = state.step >= options.warmup_steps
        return too_steep and warm and state.skipped_in_a_row < SKIPS_IN_A_ROW

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
        self._require_finite()
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
                    for name, tensor in self.sharing.whole(module.state_dict()).items()
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
        stopping, due = self._wishes() if world()[1] == 1 else self.agreed
        if not (stopping or due):
            return
        self._checkpoint()
        if stopping:
            # So that no process ends, and the launcher the others, before all is saved.
            barrier()
            self.run.stop.set()
            self.run.raise_if_stopped()

    def _checkpoint(self) -> None:
        self._require_finite()
        whole = self.sharing.whole
        state: dict[str, Any] = {
            "module": whole(self.task.module.state_dict()),
            "average": whole(self.average.module.state_dict()),
            "optimizer": whole(self.optimizer.state_dict()),
            "recent": dict(self.recent),
            "task": self.task.state(),
            "state": vars(self.state),
        }
        if self.run.is_first:
            write_checkpoint(self.run.work, state)
        self.checkpoint_time = time.monotonic()

    def _go_on_from(self, saved: dict[str, Any]) -> None:
        modules = {self.task.module: saved["module"], self.average.module: saved["average"]}
        self.sharing.load(modules, saved["optimizer"], self.optimizer)
        for name, values in saved["recent"].items():
            self.recent[name] = [value.to(self.device) for value in values]
        self.state = _State(**saved["state"])
        self.task.load_state(saved["task"])

    def _finish(self) -> Fitted:
        # The last step is safe before anything else can fail (writing outputs, a full disk).
        self._checkpoint()
        module = self.sharing.result(self._judged_module())
        best = self.state.step
        if self.state.best_weights:
            module.load_state_dict(self.state.best_weights)
            best = self.state.best_step
        return Fitted(module.eval(), pd.DataFrame(self.state.history), best)
