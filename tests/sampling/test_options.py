"""Settings that contradict each other are refused in one message."""

import pytest

from stages.core.errors import ParamsError
from stages.core.sections import read_yaml, validate
from stages.heads.base import SamplerSettings
from stages.nn.stepping import StepSettings
from stages.params import check
from stages.sampling.options import SamplingOptions


@pytest.fixture
def section(project):
    return read_yaml(project / "params.yaml")["sampling"]


def test_params_as_they_stand_ask_for_the_model_itself(section):
    options = validate(SamplingOptions, section, source="params.yaml")
    assert options.settings == SamplerSettings() and not options.rejects
    assert options.steps == StepSettings(precision="auto")


def test_every_setting_reaches_the_prior(section):
    changes = {
        "temperature": 0.9,
        "top_k": 3,
        "top_p": 0.8,
        "guidance": 2.0,
        "min_p": 0.1,
        "variance_temperature": 0.7,
        "guidance_schedule": "cosine",
        "guidance_power": 2.5,
        "guidance_interval": [0.1, 0.6],
    }
    steps = {"precision": "bfloat16", "compile": True}
    options = validate(SamplingOptions, section | changes | steps, source="params.yaml")
    assert vars(options.settings) == changes | {"guidance_interval": (0.1, 0.6)}
    assert vars(options.steps) == steps


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"guidance": 2.0, "guidance_interval": [0.7, 0.2]}, "must begin before it ends"),
        ({"guidance_schedule": "linear"}, "guidance 1 is no guidance"),
        ({"guidance_interval": [0.0, 0.5]}, "guidance 1 is no guidance"),
        ({"guidance": 2.0, "guidance_power": 2.0}, "guidance_power must be 1 with guidance_sched"),
        ({"rejection_threshold": 0.5}, "rejection_threshold must be 1 with rejection_tries 1"),
        ({"min_p": 1.0}, "min_p: Input should be less than 1"),
        ({"guidance_interval": [0.0, 1.5]}, "guidance_interval.1: Input should be less than"),
        ({"temperature": 1e-40}, "temperature: Input should be greater than or equal to 0.000001"),
        ({"temperature": 1e39}, "temperature: Input should be less than or equal to 1000000"),
        ({"variance_temperature": 1e-30}, "variance_temperature: Input should be greater than"),
        ({"guidance": 1e308}, "guidance: Input should be less than or equal to 10000"),
        ({"guidance_schedule": "sine"}, "guidance_schedule: Input should be 'constant', 'linear'"),
        ({"classes": [0, -1]}, "classes.1: Input should be greater than or equal to 0; got -1"),
        ({"rejection_tries": 0}, "rejection_tries: Input should be greater than 0"),
    ],
)
def test_contradictions_are_refused(section, changes, message):
    with pytest.raises(ParamsError, match=message) as refusal:
        validate(SamplingOptions, section | changes, source="params.yaml")
    assert len(str(refusal.value).splitlines()) == 1


@pytest.mark.parametrize(("name", "value"), [("compile", True), ("precision", "bfloat16")])
@pytest.mark.parametrize(("preset", "refused"), [("digits_masked", True), ("fashion_vq", False)])
def test_steps_are_hastened_where_a_transformer_takes_them(project, preset, refused, name, value):
    chosen = read_yaml(project / f"pipelines/presets/{preset}.yaml")
    raw = read_yaml(project / "params.yaml") | chosen
    raw["sampling"][name] = value
    if not refused:
        assert getattr(check(raw, source="p").sampling.steps, name) == value
        return
    with pytest.raises(ParamsError, match=rf"sampling\.{name}: .* prior\.kind 'masked'"):
        check(raw, source="p")


def test_codes_have_no_variance(section):
    options = validate(SamplingOptions, section | {"variance_temperature": 0.9}, source="p")
    options.check_latents("continuous")
    with pytest.raises(ParamsError, match="variance_temperature: must be 1 for codes"):
        options.check_latents("codes")
