"""A task small enough to train in milliseconds and random in every way a real one is."""

import threading
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from stages.core.stage import Run
from stages.core.tracking import open_tracker
from stages.training.options import TrainingOptions
from stages.training.task import Task, Validation

OPTIONS = {
    "steps": 60,
    "batch_size": 7,
    "pieces": 1,
    "learning_rate": 1e-2,
    "final_learning_rate": 1e-4,
    "warmup_steps": 5,
    "decay": "cosine",
    "weight_decay": 0.01,
    "betas": [0.9, 0.99],
    "gradient_clip": 1.0,
    "skip_above_norm": 0.0,
    "ema_decay": 0.9,
    "precision": "float32",
    "channels_last": False,
    "compile": False,
    "validate_every": 10,
    "patience": 0,
    "checkpoint_seconds": 1e9,
}


def options(**changes) -> TrainingOptions:
    return TrainingOptions.model_validate({**OPTIONS, "betas": (0.9, 0.99), **changes})


class Regression(Task):
    """y = w x with dropout, input noise and a running count, so that any lost state shows."""

    def __init__(
        self,
        stop_at: int | None = None,
        poison_at: int | None = None,
        pause: float = 0,
        noise: float = 1.0,
    ):
        torch.manual_seed(3)
        self.noise = noise
        self.module = nn.Sequential(nn.Linear(5, 8), nn.Dropout(0.3 * noise), nn.Linear(8, 1))
        generator = np.random.default_rng(0)
        self.x = generator.normal(size=(31, 5)).astype(np.float32)
        self.num_examples = len(self.x)
        self.seen = torch.zeros(31, dtype=torch.int64)
        self.stop = threading.Event()
        self.stop_at, self.poison_at, self.pause = stop_at, poison_at, pause
        self.steps = 0
        self.validations: list[float] = []

    def batch(self, rows: np.ndarray, device: torch.device) -> Tensor:
        self.seen += torch.bincount(torch.from_numpy(rows), minlength=31)
        return torch.from_numpy(self.x[rows])

    def loss(self, module, batch, generator, step):
        self.steps += 1
        time.sleep(self.pause)
        noisy = batch + self.noise * 0.1 * torch.randn(batch.shape, generator=generator)
        loss = (module(noisy) - batch.sum(1, keepdim=True)).square().mean()
        if self.steps == self.poison_at:
            loss = loss * float("nan")
        if self.steps == self.stop_at:
            self.stop.set()
        return loss, {"largest_seen": self.seen.max().float()}

    def validate(self, module, device, step) -> Validation:
        x = torch.from_numpy(self.x)
        loss = (module(x) - x.sum(1, keepdim=True)).square().mean().item()
        if self.validations:
            loss = self.validations.pop(0)
        return Validation(loss, {"loss": loss})

    def state(self):
        return {"seen": self.seen}

    def load_state(self, state):
        self.seen = state["seen"].clone()


def run_in(folder: Path, task: Regression) -> Run:
    folder.mkdir(parents=True, exist_ok=True)
    return Run("train_test", folder, {}, open_tracker("train_test", folder), task.stop)
