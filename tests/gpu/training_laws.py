"""What must hold of trainings on a GPU; `python -m tests.gpu.training_laws NAME` tries one."""

import functools
import sys
import tempfile
import threading
from pathlib import Path

import pandas as pd
import torch

from stages.core.errors import Interrupted
from stages.core.stage import Run
from stages.core.tracking import NullTracker
from stages.training.loop import _Training
from tests.bottlenecks.examples import EXAMPLES
from tests.gpu.the_gpu import gpu
from tests.tasks.test_tasks import autoencoder_task, prior_task, train
from tests.training.regression import options

__all__ = ["LAWS", "training"]

PLAN = {
    "steps": 9,
    "warmup_steps": 2,
    "validate_every": 4,
    "batch_size": 6,
    "patience": 3,
    "channels_last": True,
}
EMA_VQ = next(values for values in EXAMPLES if values["kind"] == "ema_vq")
MAKERS = {
    # As wide as networks are: convolutions of a few channels come back from a GPU in another layout
    # than `torch.compile` expects, and it says so.
    "ema_vq": lambda: autoencoder_task(EMA_VQ, widths=(16, 32)),
    "prior of codes": lambda: prior_task("codes"),
    "prior of continuous": lambda: prior_task("continuous"),
}


def twice_half_is_one_whole_bit_for_bit(folder, compile, precision):
    plan = options(**PLAN, compile=compile, precision=precision)
    for number, name in enumerate(MAKERS):
        one, two = folder / f"{number}", folder / f"{number} in halves"
        whole = train(MAKERS[name](), one, plan=plan, device=gpu())
        try:
            train(MAKERS[name](), two, 5, plan, gpu())
        except Interrupted:
            pass
        else:
            raise AssertionError("was not interrupted")
        halves = train(MAKERS[name](), two, plan=plan, device=gpu())
        pd.testing.assert_frame_equal(whole.history, halves.history, check_exact=True)
        other = halves.module.state_dict()
        for part, tensor in whole.module.state_dict().items():
            assert torch.equal(tensor.cpu(), other[part].cpu()), (name, part)


def training(task, folder, device, **changes):
    folder.mkdir(exist_ok=True)
    run = Run("toy", folder, {}, NullTracker(), threading.Event())
    return _Training(task, options(**PLAN | {"steps": 99} | changes), run, 0, device)


def steps_are_not_waited_for(folder, compile, precision):
    for name, make in MAKERS.items():
        task = make()
        one = training(task, folder / name, gpu(), compile=compile, precision=precision)
        for _ in range(4):
            one._train_step()
        # These numbers are looked at in the next step: waited for, but long there.
        one.unseen = None
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        one._train_step()
        torch.cuda.set_sync_debug_mode("default")


LAWS = {
    f"{law.__name__}, {name}": functools.partial(law, compile=compile, precision=precision)
    for law in (twice_half_is_one_whole_bit_for_bit, steps_are_not_waited_for)
    for name, compile, precision in (
        ("float32", False, "float32"),
        ("bfloat16", False, "bfloat16"),
        ("compiled", True, "bfloat16"),
    )
}

if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        LAWS[sys.argv[1]](Path(folder))
