"""Every member that the comparison of families names goes through all six stages."""

import shutil
import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from ruamel.yaml import YAML

from benchmarks.equal_time.ours import Line
from pipelines.comparing.comparison import read_comparison
from pipelines.settings.params_overlay import as_preset, overlaid
from stages import encode, evaluate, prepare, sample, train_autoencoder, train_judge, train_prior
from stages.core.artifacts import open_artifact
from stages.core.sections import parse_params
from stages.core.stage import Run
from stages.core.tracking import NullTracker
from stages.params import check
from stages.registry import FAMILIES
from tests.architecture.imports import PROJECT

STAGES = {
    "prepare": (prepare.PrepareParams, prepare.prepare, ()),
    "train_judge": (train_judge.Params, train_judge.train_judge, ("prepared",)),
    "train_autoencoder": (
        train_autoencoder.Params,
        train_autoencoder.train_autoencoder,
        ("prepared",),
    ),
    "encode": (encode.Params, encode.encode, ("prepared", "autoencoder")),
    "train_prior": (train_prior.Params, train_prior.train_prior, ("latents",)),
    "sample": (sample.Params, sample.sample, ("prior", "autoencoder")),
    "evaluate": (evaluate.Params, evaluate.evaluate, evaluate.INPUTS),
}
SHORT = {
    **{f"train_{what}.steps": 4 for what in ("judge", "autoencoder", "prior")},
    **{f"train_{what}.warmup_steps": 1 for what in ("judge", "autoencoder", "prior")},
    **{f"train_{what}.validate_every": 4 for what in ("judge", "autoencoder", "prior")},
    "sampling.count": 12,
    "evaluate.max_images": 100,
    "evaluate.neighbour_queries": 10,
    "evaluate.distances.resamples": 10,
    "evaluate.distances.infinity_points": 3,
}
BASE = (PROJECT / "params.yaml").read_text()
QUICK = {
    "plain",
    "vae",
    "conditional",
    "hierarchical_vae",
    "vq",
    "residual_vq",
    "gumbel",
    "hierarchical_vq",
    "attention",
    "patch_conv",
}
WITH_ITS_OWN_PRIOR = {"plain", "laplace", "conditional", "vq"}
COMPARISON = read_comparison("digits")


def params_of(sections):
    text = overlaid(BASE, as_preset(sections), SHORT)
    raw = YAML(typ="safe").load(text)
    check(raw, source="test")
    return raw


def run(stage, raw):
    params_type, program, inputs = STAGES[stage]
    params = parse_params(params_type, raw, source="test", strict=False)
    work = Path(".work") / stage
    work.mkdir(parents=True, exist_ok=True)
    opened = {name: open_artifact(Path("data") / name, name) for name in inputs}
    program(params, Run(stage, work, opened, NullTracker(), threading.Event()))


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for stage in ("prepare", "train_judge"):
            run(stage, params_of({}))
    return folder / "data"


def with_most_of_them_slow():
    """All members; those that differ from one of `QUICK` in the bottleneck alone are slow."""
    assert COMPARISON.members.keys() >= QUICK
    for name in COMPARISON.members:
        yield pytest.param(name, marks=[] if name in QUICK else [pytest.mark.slow])


@pytest.mark.parametrize("name", list(with_most_of_them_slow()))
def test_a_member_goes_through_the_line(name, prepared, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(prepared, tmp_path / "data")
    member = COMPARISON.members[name]
    # The priors that learn nothing are few: with one member of each all of them are run.
    own = name in WITH_ITS_OWN_PRIOR or not member.learned
    raw = params_of(member.sections | ({"prior": member.own_prior} if own else {}))
    for stage in ("train_autoencoder", "encode", "train_prior", "sample", "evaluate"):
        run(stage, raw)
    figures = pd.read_json("data/metrics/metrics.json", typ="series")
    assert np.isfinite(figures).all()
    assert figures["frechet_classifier"] >= 0 and figures["mse"] > 0
    made = Line(tmp_path / "data", {}).made()
    assert made.reconstructions.shape[1:] == made.samples.shape[1:], "as `equal_time` reads a line"
    assert (made.labels is not None) == ("class_accuracy" in figures)


def test_every_first_stage_is_compared():
    chosen = {family: {"flat", "conv"} for family in ("autoencoders", "backbones", "bottlenecks")}
    for member in COMPARISON.members.values():
        for section, values in member.sections.items():
            chosen.setdefault(f"{section}s", set()).add(values["kind"])
    assert chosen["bottlenecks"] >= set(FAMILIES["bottlenecks"])
    assert chosen["autoencoders"] >= set(FAMILIES["autoencoders"])
    assert chosen["backbones"] >= set(FAMILIES["backbones"])
