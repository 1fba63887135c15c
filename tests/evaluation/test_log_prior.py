"""Figures of a prior say what kind of number its log-probability is."""

import pandas as pd
import pytest

from stages.core.artifacts import open_artifact
from stages.core.errors import ParamsError
from stages.core.sections import read_yaml
from stages.params import check
from tests.architecture.imports import PROJECT
from tests.evaluation.test_evaluate import NAMES, evaluated
from tests.evaluation.tiny_line import CODES, CONTINUOUS, make_line
from tests.priors.sections import SIZES

MASKED = {
    **SIZES,
    "kind": "masked",
    "dropout": 0.0,
    "layers": 1,
    "masking": "cosine",
    "label_smoothing": 0.0,
    "decoding_steps": 2,
    "choice_temperature": 1.0,
    "bound_masks": 4,
}
DIFFUSION = {
    "kind": "diffusion",
    "blocks": 1,
    "width": 8,
    "draws": 1,
    "noise_floor": 0.01,
    "sampling_steps": 2,
    "eta": 1.0,
    "bound_points": 4,
}
FLOW = {
    "kind": "flow",
    "blocks": 1,
    "width": 8,
    "draws": 1,
    "times": "uniform",
    "solver": "euler",
    "sampling_steps": 2,
    "density_steps": 2,
}
LINES = {
    "exact": (CODES, "exact"),
    "masked": ({**CODES, "prior": MASKED}, "lower bound: mean over orders"),
    "diffusion": (
        {**CONTINUOUS, "prior": CODES["prior"], "head": DIFFUSION},
        "lower bound: variational",
    ),
    "flow": ({**CONTINUOUS, "prior": CODES["prior"], "head": FLOW}, "change of variables"),
}


@pytest.mark.parametrize("name", LINES)
def test_figures_and_samples_say_how_the_latents_were_judged(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    system, how = LINES[name]
    make_line(tmp_path, system, NAMES)
    figures = evaluated(tmp_path)
    assert figures["prior_nats"]["protocol"]["details"]["log_prior"].startswith(how)
    assert figures["total_bits_per_dim"]["protocol"]["details"]["log_prior"].startswith(how)
    assert (
        open_artifact(tmp_path / "data/samples", "samples").about["log_probability"].startswith(how)
    )
    table = pd.read_parquet(tmp_path / "data/samples/samples.parquet")
    assert table["log_probability"].notna().all()


def test_importance_weights_under_a_bound_are_refused_before_anything_is_trained():
    raw = read_yaml(PROJECT / "params.yaml") | read_yaml(
        PROJECT / "pipelines/presets/digits_kl.yaml"
    )
    raw["evaluate"] = {**raw["evaluate"], "iwae_prior_draws": 5}
    check(raw, source="params.yaml")
    check({**raw, "head": FLOW}, source="params.yaml")
    with pytest.raises(ParamsError, match=r"iwae_prior_draws: must be 0 .* a lower bound"):
        check({**raw, "head": DIFFUSION}, source="params.yaml")
