"""The two stages as tasks: real models resume exactly, and the warning lights tell the truth."""

import threading

import numpy as np
import pytest
import torch

from stages.assembly.first_stage import FirstStageParams, build_first_stage
from stages.assembly.second_stage import SecondStageParams, build_second_stage
from stages.bottlenecks.base import LatentSpec
from stages.core.errors import Interrupted
from stages.core.randomness import seed_everything
from stages.core.sections import parse_params, validate
from stages.core.shapes import ImageShape
from stages.core.stage import Run
from stages.core.tracking import open_tracker
from stages.stores.latents import LatentBatch, LatentSplit
from stages.stores.prepared import PreparedSplit
from stages.tasks.autoencoder import AutoencoderTask
from stages.tasks.collapse import CollapseMonitor
from stages.tasks.collapse_options import CollapseOptions
from stages.tasks.prior import PriorTask
from stages.training.loop import fit
from tests.backbones.examples import conv
from tests.bottlenecks.examples import EXAMPLES
from tests.objectives.examples import ELBO
from tests.priors.sections import TRANSFORMER
from tests.training.regression import options

IMAGE = ImageShape(1, 8, 12)
CPU = torch.device("cpu")
COLLAPSE = {
    "dimension_below": 0.1,
    "warn_above": 0.1,
    "alarm_above": 0.2,
    "after_steps": 0,
    "stop": False,
}
HEADS = {
    "codes": {"kind": "categorical", "tied": False},
    "continuous": {
        "kind": "mixture",
        "components": 2,
        "std_floor": 1e-2,
        "guidance_candidates": 2,
    },
}


def split(count):
    pixels = np.random.default_rng(count).integers(0, 256, (count, *IMAGE), dtype=np.uint8)
    return PreparedSplit(images=pixels, labels=None, factors=None)


def autoencoder_task(bottleneck, widths=(6, 10)):
    raw = {
        "autoencoder": {"kind": "flat"},
        "backbone": conv(list(widths), 1),
        "bottleneck": bottleneck,
        "likelihood": {"kind": "gaussian", "sigma": "optimal", "value": 0.1, "decay": 0.9},
        "objective": ELBO,
    }
    seed_everything(0, "autoencoder")
    params = parse_params(FirstStageParams, raw, source="test", strict=True)
    monitor = CollapseMonitor(validate(CollapseOptions, COLLAPSE, source="test"), lambda *tag: None)
    return AutoencoderTask(build_first_stage(params, IMAGE), split(23), split(5), monitor, seed=0)


class Latents(LatentSplit):
    """Rows of latents, without a file behind them."""

    def __init__(self, count, kind):
        draw = torch.Generator().manual_seed(count)
        self.classes = torch.randint(0, 3, (count,), generator=draw)
        self.parts = (
            (torch.randint(0, 5, (count, 2, 3), generator=draw), None, None)
            if kind == "codes"
            else (None, *torch.randn(2, count, 4, 2, 3, generator=draw))
        )

    def __len__(self):
        return len(self.classes)

    def batch(self, rows):
        parts = [None if part is None else part[rows] for part in self.parts]
        return LatentBatch(*parts, labels=self.classes[rows])


NOISY = {
    "layers": 1,
    "width": 8,
    "label_dropout": 0.2,
    "token_dropout": 0.2,
    "residual_dropout": 0.2,
    "feed_forward_dropout": 0.2,
    "attention_dropout": 0.2,
    "order": "random_to_raster",
    "random_until": 3,
    "raster_from": 8,
}


def prior_task(kind):
    raw = {
        "prior": {**TRANSFORMER, **NOISY},
        "head": HEADS[kind],
    }
    spec = LatentSpec(kind, 2, 3, *((5, 0) if kind == "codes" else (0, 4)))
    seed_everything(0, "prior")
    params = parse_params(SecondStageParams, raw, source="test", strict=True)
    prior = build_second_stage(params, spec, num_classes=3)
    return PriorTask(prior, Latents(19, kind), Latents(4, kind), seed=0)


MAKERS = {
    **{f"{e['kind']} {e.get('layout', '')}": lambda e=e: autoencoder_task(e) for e in EXAMPLES},
    **{f"prior of {kind}": lambda kind=kind: prior_task(kind) for kind in HEADS},
}


PLAN = options(steps=9, warmup_steps=2, validate_every=4, batch_size=6, patience=3)


def train(task, folder, stop_after=None, plan=PLAN, device=CPU):
    """What was fitted; a stop is asked for after so many steps."""
    folder.mkdir(exist_ok=True)
    run = Run("toy", folder, {}, open_tracker("toy", folder), threading.Event())
    if stop_after is not None:
        after, seen = task.after_step, []

        def counting(generator):
            seen.append(1)
            if len(seen) == stop_after:
                run.stop.set()
            return after(generator)

        task.after_step = counting
    return fit(task, plan, run, seed=0, device=device)


@pytest.mark.parametrize("name", MAKERS)
def test_twice_half_is_one_whole_bit_for_bit(name, tmp_path):
    whole = train(MAKERS[name](), tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(MAKERS[name](), tmp_path / "half", stop_after=5)
    resumed = train(MAKERS[name](), tmp_path / "half")
    for key, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[key]), key
    assert whole.history.equals(resumed.history)


def test_usage_is_counted_over_whole_epochs(tmp_path):
    task = autoencoder_task(next(e for e in EXAMPLES if e["kind"] == "ema_vq"))
    history = train(task, tmp_path).history
    ends = history.loc[history["epoch_code_usage"].notna(), "step"].tolist()
    assert ends == [4, 8], "23 images in batches of 6: every fourth step ends an epoch"


def test_kl_is_recorded_by_channel_and_in_all(tmp_path):
    task = autoencoder_task({"kind": "gaussian", "layout": "spatial", "channels": 4})
    last = train(task, tmp_path).history.iloc[-1]
    for split in ("", "validation_"):
        channels = [last[f"{split}kl_nats_channel_{index:03d}"] for index in range(4)]
        assert sum(channels) == pytest.approx(last[f"{split}kl_nats"], rel=1e-5)
    posterior = task.module.eval().encode(task._read(task.validation, np.arange(5), CPU).images)
    assert last["validation_kl_nats"] > 0 and posterior.mean.shape == (5, 4, 2, 3)
