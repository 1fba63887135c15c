"""A prior as an artifact."""

import json

import pytest
import torch

from stages.assembly.second_stage import (
    SecondStageParams,
    build_second_stage,
    load_second_stage,
    save_second_stage,
)
from stages.bottlenecks.base import LatentSpec
from stages.core.artifacts import new_artifact, write_json
from stages.core.errors import ArtifactError, ParamsError
from stages.core.sections import parse_params
from tests.priors.sections import TRANSFORMER

SPEC = LatentSpec("codes", 2, 3, num_codes=5)
CPU = torch.device("cpu")


def params(prior=TRANSFORMER):
    raw = {"prior": prior, "head": {"kind": "categorical", "tied": False}}
    return parse_params(SecondStageParams, raw, source="params.yaml", strict=True)


def save(path, prior=TRANSFORMER, change=None):
    torch.manual_seed(0)
    network = build_second_stage(params(prior), SPEC, num_classes=3)
    with new_artifact(path, "prior", {}) as folder:
        save_second_stage(folder, network, params(prior), "a" * 64, "b" * 64, ["x", "y", "z"])
        if change is not None:
            config = json.loads((folder / "config.json").read_text())
            change(config)
            write_json(folder / "config.json", config)
    return network


def test_a_loaded_prior_is_frozen_and_in_evaluation_mode(tmp_path):
    save(tmp_path / "prior")
    loaded = load_second_stage(tmp_path / "prior", CPU)
    assert not loaded.prior.training
    assert not any(parameter.requires_grad for parameter in loaded.prior.parameters())
    assert loaded.class_names == ["x", "y", "z"]


def test_equal_priors_give_equal_artifacts(tmp_path):
    digests = set()
    for name in ("first", "second"):
        save(tmp_path / name)
        digests.add(load_second_stage(tmp_path / name, CPU).artifact.digest)
    assert len(digests) == 1


def test_class_names_are_kept_for_decoders_that_know_classes_where_the_prior_does_not(tmp_path):
    save(tmp_path / "prior", {"kind": "uniform"})
    loaded = load_second_stage(tmp_path / "prior", CPU)
    assert loaded.prior.num_classes == 0 and loaded.class_names == ["x", "y", "z"]


def test_a_damaged_prior_is_refused_by_name(tmp_path):
    save(tmp_path / "prior")
    weights = tmp_path / "prior" / "weights.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(ArtifactError, match=r"weights.safetensors: damaged"):
        load_second_stage(tmp_path / "prior", CPU)


@pytest.mark.parametrize(
    "change",
    [
        lambda config: config["sections"]["prior"].update(width=32),
        lambda config: config["sections"]["prior"].update(kind="of_tomorrow"),
        lambda config: config["spec"].update(depth=3),
        lambda config: config.pop("latents"),
    ],
)
def test_a_prior_of_another_version_is_refused(tmp_path, change):
    save(tmp_path / "prior", change=change)
    with pytest.raises(ArtifactError, match="train it again"):
        load_second_stage(tmp_path / "prior", CPU)


def test_a_head_that_does_not_fit_is_refused_before_training():
    raw = {
        "prior": TRANSFORMER,
        "head": {"kind": "mixture", "components": 2, "std_floor": 0.1, "guidance_candidates": 1},
    }
    wrong = parse_params(SecondStageParams, raw, source="params.yaml", strict=True)
    with pytest.raises(ParamsError, match=r"head.kind: 'mixture' describes continuous latents"):
        build_second_stage(wrong, SPEC, num_classes=3)
