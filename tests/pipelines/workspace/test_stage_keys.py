"""Keys tell executions apart exactly where parameters, members or what is upstream differ."""

import pytest

from pipelines.settings.params_overlay import overlaid, preset_path, read_params
from pipelines.workspace.stage_graph import stage_order
from pipelines.workspace.stage_keys import described_stages, stage_keys, stage_outputs
from stages.core.errors import ParamsError
from stages.core.sections import read_yaml
from tests.architecture.imports import PROJECT

GRAPH = stage_order(PROJECT)
DESCRIBED = described_stages(PROJECT)
PARAMS = read_yaml(PROJECT / "params.yaml")


def changed(**sections):
    """Stages whose key is another with these sections updated."""
    params = {
        name: value | sections[name] if isinstance(value, dict) and name in sections else value
        for name, value in PARAMS.items()
    }
    before, after = (stage_keys(DESCRIBED, GRAPH, each) for each in (PARAMS, params))
    return {stage for stage in GRAPH if before[stage] != after[stage]}


def test_a_value_changes_the_stages_that_read_it_and_what_follows():
    assert changed() == set()
    assert changed(sampling={"seed": 1}) == {"sample", "evaluate"}
    assert changed(prior={"layers": 9}) == {"train_prior", "sample", "evaluate"}
    assert changed(encode={"batch_size": 9}) == {"encode", "train_prior", "sample", "evaluate"}
    assert changed(judge={"width": 9}) == {"train_judge", "sample", "evaluate"}
    assert changed(dataset={"test_fraction": 0.3}) == set(GRAPH)


def test_a_member_is_another_dependency_also_where_its_section_is_no_parameter():
    # `encode` has `bottleneck.kind` among its deps and not among its params.
    assert "encode" in changed(bottleneck={"kind": "vq"})
    described = {"s": {"cmd": "x", "deps": ["stages/${a.kind}.py"]}}
    keys = [stage_keys(described, {"s": []}, {"a": {"kind": kind}})["s"] for kind in "xxy"]
    assert keys[0] == keys[1] != keys[2]


def test_a_missing_parameter_is_named():
    with pytest.raises(ParamsError, match=r"params\.yaml: a\.kind is missing"):
        stage_keys({"s": {"cmd": "${a.kind}"}}, {"s": []}, {"a": {}})


def test_outputs_are_those_of_dvc_yaml():
    assert stage_outputs(DESCRIBED)["encode"] == ["data/latents", "data/runs/encode.json"]
    assert stage_outputs({"s": {"outs": [{"x": {"cache": False}}]}}) == {"s": ["x"]}


def test_every_preset_has_keys():
    text = (PROJECT / "params.yaml").read_text()
    preset = overlaid(text, preset_path("digits_kl").read_text(), {})
    assert set(stage_keys(DESCRIBED, GRAPH, read_params(preset))) == set(GRAPH)
