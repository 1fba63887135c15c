"""Perceptual loss and adversary inside the training of a first stage: it resumes exactly."""

import threading

import pytest
import torch

from stages.core.errors import Interrupted, ParamsError
from stages.core.sections import validate
from stages.core.stage import Run
from stages.core.tracking import open_tracker
from stages.tasks.adversary import AdversaryOptions
from stages.tasks.appearance import build_appearance
from stages.tasks.perceptual import PerceptualOptions
from stages.training.loop import fit
from tests.bottlenecks.examples import EXAMPLES
from tests.nn.lpips_files import write_lpips
from tests.tasks.test_adversary import OPTIONS as ADVERSARY
from tests.tasks.test_tasks import IMAGE, autoencoder_task
from tests.tasks.test_tasks import train as fit_task
from tests.training.regression import options

CPU = torch.device("cpu")
IDENTITY = next(values for values in EXAMPLES if values["kind"] == "identity")
PLAN = options(steps=9, warmup_steps=2, validate_every=5, batch_size=2)


def appearance(weights="", perceptual=0.0, device=CPU, **changes):
    return build_appearance(
        validate(PerceptualOptions, {"weight": perceptual, "weights": str(weights)}, source="t"),
        validate(AdversaryOptions, ADVERSARY | changes, source="t"),
        IMAGE,
        seed=0,
        device=device,
    )


def train(looks, folder, stop_after=None):
    """The trained module, its curves, and the terms as they ended."""
    task = autoencoder_task(IDENTITY)
    task.appearance = looks
    return fit_task(task, folder, stop_after, PLAN)


def same(first, second):
    return all(torch.equal(t, second[name]) for name, t in first.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"adaptive": True, "lecam_weight": 0.1},
        {"loss": "non_saturating", "start_step": 6},
        {"adaptive": True, "perceptual": 0.3},
    ],
    ids=str,
)
def test_twice_half_is_one_whole_bit_for_bit(changes, tmp_path, monkeypatch):
    write_lpips(tmp_path / "weights", monkeypatch)
    looks = [appearance(tmp_path / "weights", **changes) for _ in range(3)]
    whole = train(looks[0], tmp_path / "whole")
    with pytest.raises(Interrupted):
        train(looks[1], tmp_path / "half", stop_after=5)
    resumed = train(looks[2], tmp_path / "half")
    assert same(whole.module.state_dict(), resumed.module.state_dict())
    assert whole.history.equals(resumed.history)
    networks = [found.adversary.network.state_dict() for found in looks]
    assert same(networks[0], networks[2]) and not same(networks[0], networks[1])
    assert whole.history["logits_rebuilt"].notna().any()


def test_without_weights_the_training_is_untouched_and_nothing_is_read(tmp_path):
    looks = appearance("/no/such/folder", weight=0.0)
    assert looks.perceptual is None and looks.adversary is None
    assert looks.about == {} and looks.state() == {}
    off = train(looks, tmp_path / "off")
    task = autoencoder_task(IDENTITY)
    run = Run("toy", tmp_path, {}, open_tracker("toy", tmp_path), threading.Event())
    plain = fit(task, PLAN, run, seed=0, device=CPU)
    assert same(plain.module.state_dict(), off.module.state_dict())
    assert plain.history.equals(off.history)


def test_both_terms_are_added_to_the_loss_in_nats_per_dim(tmp_path, monkeypatch):
    write_lpips(tmp_path, monkeypatch)
    looks = appearance(tmp_path, perceptual=0.3, adaptive=True)
    draw = torch.Generator().manual_seed(0)
    images = torch.rand(3, *IMAGE, generator=draw) * 2 - 1
    layer = torch.nn.Conv2d(IMAGE.channels, IMAGE.channels, 3, padding=1)
    rebuilt = layer(images)
    distortion = (images - rebuilt).square().sum(dim=(1, 2, 3))
    early, figures = looks.loss(images, rebuilt, distortion, 1)
    assert set(figures) == {"lpips"} and figures["lpips"] > 0
    torch.testing.assert_close(early, 0.3 * figures["lpips"])
    late, figures = looks.loss(images, rebuilt, distortion, 2)
    fooling = figures["adversary_weight"] * figures["fooling"]
    torch.testing.assert_close(late, 0.3 * figures["lpips"] + fooling)
    # What Eq. 7 compares with is distortion and perceptual term together.
    rec = distortion.mean() / IMAGE.dims + early
    pulls = [
        torch.autograd.grad(t, layer.weight, retain_graph=True)[0] for t in (rec, late - early)
    ]
    assert pulls[1].norm().item() == pytest.approx(0.5 * pulls[0].norm().item(), rel=1e-3)
    judged, seen = looks.judge(images, rebuilt)
    assert torch.equal(judged, early) and torch.equal(seen["lpips"], figures["lpips"])


def test_validation_and_the_record_know_of_the_perceptual_term(tmp_path, monkeypatch):
    checksums = write_lpips(tmp_path / "weights", monkeypatch)
    looks = appearance(tmp_path / "weights", perceptual=0.3, weight=0.0)
    resize = "bilinear, 8x12 to 64x96 (shorter side 64)"
    assert looks.about == {"perceptual": {**checksums, "resize": resize}}
    last = train(looks, tmp_path / "run").history.iloc[-1]
    nats = last["validation_distortion_nats"] / IMAGE.dims + 0.3 * last["validation_lpips"]
    assert last["validation_loss"] == pytest.approx(nats, rel=1e-5)


def test_a_weight_needs_its_files(tmp_path):
    with pytest.raises(
        ParamsError, match=r"weights must name the folder .* got '' and weight 0\.3"
    ):
        appearance("", perceptual=0.3)
    with pytest.raises(ParamsError, match=r"no such file; perceptual\.weights must name"):
        appearance(tmp_path, perceptual=0.3)
