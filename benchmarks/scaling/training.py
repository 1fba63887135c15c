"""One timed training, in as many processes as asked: the models of `fashion_vq`, random data.

python -m benchmarks.scaling.training FOLDER WHAT COUNT STEPS PIECES
"""

import json
import sys
import threading
import time
from pathlib import Path

import numpy as np
import torch

from stages.assembly.first_stage import FirstStageParams, build_first_stage
from stages.assembly.second_stage import SecondStageParams, build_second_stage
from stages.bottlenecks.base import LatentSpec
from stages.core.launch import launch
from stages.core.ranks import ComputeOptions, is_first_process, joined, was_started_by_launcher
from stages.core.sections import parse_params, read_yaml, validate
from stages.core.shapes import ImageShape
from stages.core.stage import Run, exit_statuses
from stages.core.tracking import NullTracker
from stages.stores.latents import LatentBatch
from stages.stores.prepared import PreparedSplit
from stages.tasks.autoencoder import AutoencoderTask
from stages.tasks.collapse import CollapseMonitor, CollapseOptions
from stages.tasks.prior import PriorTask
from stages.training.loop import fit
from stages.training.options import TrainingOptions
from stages.training.task import Task, Validation

__all__ = ["BATCH", "WHAT"]

PROJECT = Path(__file__).resolve().parents[2]
WHAT = ("first stage", "prior")
BATCH = 128
WARM_UP = 5
ROWS = 1024
IMAGE = ImageShape(1, 32, 32)
SPEC = LatentSpec("codes", 8, 8, num_codes=256)


def main(folder: Path, what: str, count: int, steps: int, pieces: int) -> None:
    """Time a training, or start the processes that do."""
    torch.set_num_threads(1)
    compute = ComputeOptions(processes=count, hosts=1, prior_strategy="ddp")
    with exit_statuses("scaling"):
        if count == 1:
            _time(folder, what, steps, pieces)
        elif was_started_by_launcher():
            with joined(compute, "cpu"):
                _time(folder, what, steps, pieces)
        else:
            launch("scaling", compute, "benchmarks.scaling.training", *sys.argv[1:])


def _time(folder: Path, what: str, steps: int, pieces: int) -> None:
    raw = read_yaml(PROJECT / "params.yaml")
    raw |= read_yaml(PROJECT / "pipelines/presets/fashion_vq.yaml")
    task = {"first stage": _first_stage, "prior": _prior}[what](raw)
    began: list[float] = []
    _note_steps(task, began)
    section = raw["train_autoencoder" if what == "first stage" else "train_prior"]
    changes = {
        "steps": steps + WARM_UP,
        "batch_size": BATCH,
        "pieces": pieces,
        "warmup_steps": WARM_UP,
        "validate_every": steps + WARM_UP,
        "patience": 0,
        "precision": "float32",
        "checkpoint_seconds": 1e9,
    }
    options = validate(TrainingOptions, section | changes, source="benchmark")
    run = Run("scaling", folder, {}, NullTracker(), threading.Event(), is_first_process())
    fit(task, options, run, seed=0, device=torch.device("cpu"))
    if run.is_first:
        seconds = began[-1] - began[WARM_UP - 1]
        result = {"images_per_second": steps * BATCH / seconds, "seconds": seconds}
        (folder / "result.json").write_text(json.dumps(result))


def _note_steps(task: Task, ended: list[float]) -> None:
    after = task.after_step

    def noted(generator: torch.Generator) -> dict[str, float]:
        figures = after(generator)
        ended.append(time.perf_counter())
        return figures

    task.after_step = noted  # type: ignore[method-assign]
    # Validation is no part of what is timed.
    task.validate = lambda *_: Validation(0.0, {})  # type: ignore[method-assign]


def _first_stage(raw: dict) -> Task:
    params = parse_params(FirstStageParams, raw, source="benchmark", strict=False)
    numbers = np.random.default_rng(0)
    pixels = numbers.integers(0, 256, (ROWS, *IMAGE), dtype=np.uint8)
    split = PreparedSplit(images=pixels, labels=None, factors=None)
    options = validate(CollapseOptions, raw["collapse"], source="benchmark")
    monitor = CollapseMonitor(options, lambda name, value: None)
    model = build_first_stage(params, IMAGE, num_classes=0)
    return AutoencoderTask(model, split, split, monitor, seed=0)


class _Codes:
    """Random codes in the place of a stored split."""

    def __init__(self) -> None:
        draw = torch.Generator().manual_seed(0)
        self._codes = torch.randint(0, SPEC.num_codes, (ROWS, 8, 8), generator=draw)

    def __len__(self) -> int:
        return ROWS

    def batch(self, rows: np.ndarray) -> LatentBatch:
        return LatentBatch(self._codes[rows], None, None, labels=torch.zeros(len(rows)).long())


def _prior(raw: dict) -> Task:
    params = parse_params(SecondStageParams, raw, source="benchmark", strict=False)
    prior = build_second_stage(params, SPEC, num_classes=10)
    return PriorTask(prior, _Codes(), _Codes(), seed=0)  # type: ignore[arg-type]


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], *(int(word) for word in sys.argv[3:]))
