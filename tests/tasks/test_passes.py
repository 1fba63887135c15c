"""Fitting in passes: exact resume, the best pass, and priors that have none."""

import threading

import pytest
import torch

from stages.assembly.second_stage import SecondStageParams, build_second_stage
from stages.bottlenecks.base import LatentSpec
from stages.core.errors import Interrupted
from stages.core.sections import parse_params
from stages.core.stage import Run
from stages.core.tracking import open_tracker
from stages.tasks.passes import fit_in_passes
from stages.tasks.prior import PriorTask
from tests.tasks.test_tasks import Latents

CPU = torch.device("cpu")
MIXTURE = {
    "kind": "gaussian_mixture",
    "components": 2,
    "covariance": "diagonal",
    "per_class": True,
    "covariance_floor": 1e-3,
    "kmeans_iterations": 3,
    "draws": 2,
    "max_passes": 6,
    "tolerance": 0.0,
}


def task(prior=MIXTURE):
    raw = {"prior": prior, "head": {"kind": "categorical", "tied": False}}
    params = parse_params(SecondStageParams, raw, source="test", strict=True)
    spec = LatentSpec("continuous", 2, 3, channels=4)
    torch.manual_seed(0)
    module = build_second_stage(params, spec, num_classes=3)
    return PriorTask(module, Latents(53, "continuous"), Latents(7, "continuous"), seed=0)


def fit(task, folder, stop_after=None):
    folder.mkdir(exist_ok=True)
    run = Run("toy", folder, {}, open_tracker("toy", folder), threading.Event())
    fit_pass, done = task.module.fit_pass, []

    def counting(batches):
        done.append(1)
        if len(done) == stop_after:
            run.stop.set()
        return fit_pass(batches)

    task.module.fit_pass = counting
    return fit_in_passes(task, run, device=CPU)


@pytest.mark.parametrize("stop_after", [1, 4])
def test_twice_half_is_one_whole_bit_for_bit(stop_after, tmp_path):
    whole = fit(task(), tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(task(), tmp_path / "half", stop_after)
    resumed = fit(task(), tmp_path / "half")
    for key, tensor in whole.module.state_dict().items():
        assert torch.equal(tensor, resumed.module.state_dict()[key]), key
    assert whole.history.equals(resumed.history) and whole.best_step == resumed.best_step


def test_passes_lower_the_loss_and_the_best_validated_one_is_kept(tmp_path):
    toy = task()
    fitted = fit(toy, tmp_path)
    history = fitted.history
    assert history["step"].tolist() == list(range(7)) and history["loss"].isna()[0]
    assert (history["loss"].dropna().diff().dropna() <= 1e-5).all()
    best = history["validation_nats_per_image"].idxmin()
    assert fitted.best_step == best
    again = toy.validate(fitted.module, CPU, 0).criterion
    assert again == pytest.approx(history["validation_nats_per_image"][best], rel=1e-6)


def test_it_stops_when_a_pass_gains_too_little(tmp_path):
    fitted = fit(task({**MIXTURE, "tolerance": 1e6, "max_passes": 50}), tmp_path)
    assert fitted.history["step"].tolist() == [0, 1, 2]


def test_every_pass_sees_every_row_and_the_same_draws():
    toy = task()
    first, second = (list(toy.pieces(2, CPU)) for _ in range(2))
    assert sum(len(latents) for latents, _ in first) == 2 * 53
    assert all(torch.equal(a[0], b[0]) for a, b in zip(first, second, strict=True))
    assert not torch.equal(first[0][0], first[1][0])
    assert torch.equal(first[0][1], first[1][1])


def test_a_prior_that_learns_nothing_is_judged_and_left_as_it_is(tmp_path):
    fitted = fit(task({"kind": "standard_normal"}), tmp_path)
    assert fitted.best_step == 0 and len(fitted.history) == 1
    assert not list(tmp_path.glob("*.pt"))
