"""What tests run in one or several processes: small trainings whose losses are written as JSON.

python -m tests.training.rank_program FOLDER PROCESSES CASES
"""

import json
import os
import sys
import threading
import time
from pathlib import Path

import torch

from stages.core.errors import DataError
from stages.core.launch import launch
from stages.core.ranks import (
    ComputeOptions,
    is_first_process,
    joined,
    was_started_by_launcher,
    world,
)
from stages.core.stage import Run, exit_statuses
from stages.core.tracking import NullTracker

LEARNING = ("vq", "ema_vq", "cosine_vq", "residual_vq", "score_function", "lookup_free")
STOP_AFTER = 5


def make(case):
    # Not by the process that only starts others.
    from tests.bottlenecks.examples import EXAMPLES
    from tests.tasks.test_tasks import autoencoder_task, prior_task

    if case == "prior":
        return prior_task("codes")
    return autoencoder_task(next(e for e in EXAMPLES if e["kind"] == case))


def disturb(task, run, folder):
    """What the environment asks to happen in this process after a step."""
    rank, after = world()[0], task.after_step
    steps = []
    (folder / f"pid_{rank}").write_text(str(os.getpid()))

    def disturbed(generator):
        steps.append(1)
        time.sleep(float(os.environ.get("PAUSE", 0)))
        if len(steps) == STOP_AFTER and os.environ.get("STOP_RANK") == str(rank):
            run.stop.set()
        if len(steps) == STOP_AFTER and os.environ.get("MISTAKE_RANK") == str(rank):
            raise DataError("this is the mistake")
        return after(generator)

    task.after_step = disturbed


def train(case, folder, strategy=None):
    from stages.training.loop import fit
    from tests.training.regression import options

    task = make(case)
    work = folder / f"{case}.work"
    work.mkdir(exist_ok=True)
    run = Run(case, work, {}, NullTracker(), threading.Event(), is_first_process())
    disturb(task, run, folder)
    plan = options(steps=12, warmup_steps=2, validate_every=6, batch_size=12, pieces=4)
    strategy = strategy or os.environ.get("STRATEGY", "ddp")
    fitted = fit(task, plan, run, seed=0, device=torch.device("cpu"), strategy=strategy)
    if not run.is_first:
        return
    last = fitted.history.iloc[-1]
    figures = {"loss": "loss", "gradient_norm": "gradient_norm"}
    validations = fitted.history.filter(regex="^validation_").dropna().to_numpy().tolist()
    weights = [float(p.detach().double().sum()) for p in fitted.module.parameters()]
    result = {name: float(last[column]) for name, column in figures.items()}
    result |= {"validation": validations, "weights": weights}
    (folder / f"{case}.json").write_text(json.dumps(result))
    print(f"trained {case}")


def main(folder, processes, cases):
    torch.set_num_threads(1)
    chosen = cases.split(",")
    hosts = int(os.environ.get("HOSTS", 1))
    compute = ComputeOptions(processes=processes // hosts, hosts=hosts, prior_strategy="ddp")
    with exit_statuses("test"):
        if processes == 1:
            for case in chosen:
                train(case, folder)
        elif not was_started_by_launcher():
            launch("test", compute, "tests.training.rank_program", *sys.argv[1:])
        else:
            with joined(compute, "cpu"):
                for case in chosen:
                    train(case, folder)


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
