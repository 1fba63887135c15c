"""Wall time turned into steps: measured without the start, once, and proportions kept."""

import math
import shutil

import pytest
from ruamel.yaml import YAML

from pipelines.comparing import step_cost
from pipelines.comparing.step_cost import seconds_per_step, with_steps
from pipelines.settings.params_overlay import overlaid
from tests.architecture.imports import PROJECT

PARAMS = (PROJECT / "params.yaml").read_text()


@pytest.mark.parametrize(("steps", "warmup", "every"), [(40, 4, 10), (42, 4, 11), (3, 0, 1)])
def test_steps_are_warmed_up_for_a_tenth_and_validated_four_times(steps, warmup, every):
    text = with_steps(PARAMS, "train_autoencoder", steps)
    section = YAML(typ="safe").load(text)["train_autoencoder"]
    assert section["steps"] == steps
    assert (section["warmup_steps"], section["validate_every"]) == (warmup, every)


class Clock:
    """A branch whose stages take a known time to start, for each step and for each validation."""

    params = PARAMS
    start, per_step, validation, ran = 7.0, 0.02, 3.0, ()

    def __init__(self, folder):
        self.folder = folder
        shutil.copyfile(PROJECT / "dvc.yaml", folder / "dvc.yaml")
        self.code = {path: "as it was" for path in ("stages/nn", "stages/priors/transformer.py")}

    def git(self, *arguments):
        command, commit, _, *paths = arguments
        assert (command, commit) == ("ls-tree", "HEAD")
        return "\n".join(f"{path} {self.code[path]}" for path in paths if path in self.code)

    def python(self, *arguments, log, tracked):
        section = YAML(typ="safe").load(self.params)["train_prior"]
        steps, every = section["steps"], section["validate_every"]
        validations = math.ceil(steps / every) * self.validation
        self.now = getattr(self, "now", 0.0) + self.start + self.per_step * steps + validations
        self.ran += (steps,)
        return ()


def test_the_cost_of_a_step_is_measured_without_start_and_validation(tmp_path, monkeypatch):
    clock = Clock(tmp_path)
    monkeypatch.setattr(step_cost.time, "monotonic", lambda: getattr(clock, "now", 0.0))
    found = seconds_per_step(clock, "train_prior", print)
    assert found == pytest.approx(0.02)
    assert clock.ran == (10, 60, 360, 2160), "until the steps take longer than any start varies"
    assert clock.params == PARAMS


def test_the_cost_of_a_step_is_measured_once_for_the_same_params(tmp_path, monkeypatch):
    clock = Clock(tmp_path)
    monkeypatch.setattr(step_cost.time, "monotonic", lambda: getattr(clock, "now", 0.0))
    first = seconds_per_step(clock, "train_prior", print)
    clock.per_step, clock.ran = 0.05, ()
    assert seconds_per_step(clock, "train_prior", print) == first and not clock.ran
    clock.params = overlaid(PARAMS, None, {"seed": 1})
    assert seconds_per_step(clock, "train_prior", print) == pytest.approx(0.05)


def test_only_other_code_of_the_stage_is_timed_anew(tmp_path, monkeypatch):
    clock = Clock(tmp_path)
    monkeypatch.setattr(step_cost.time, "monotonic", lambda: getattr(clock, "now", 0.0))
    first = seconds_per_step(clock, "train_prior", print)
    clock.per_step = 0.05
    clock.code |= {"stages/priors/pixel_cnn.py": "new", "stages/nn": "as it was"}
    assert seconds_per_step(clock, "train_prior", print) == first, "of a member nobody has chosen"
    clock.code["stages/priors/transformer.py"] = "faster"
    assert seconds_per_step(clock, "train_prior", print) == pytest.approx(0.05)
