"""Networks beside the judge: opened before any work, each with figures of its own name."""

import pytest
from ruamel.yaml import YAML

from stages.core.errors import ParamsError
from stages.evaluation.options import EvaluateOptions
from stages.params import check


def checked(project, networks) -> EvaluateOptions:
    raw = YAML(typ="safe").load(project / "params.yaml")
    raw["evaluate"]["networks"] = networks
    return check(raw, source="test").evaluate


def test_each_is_read_by_its_file(project):
    named = [{"kind": "mobilenet_v2", "weights": "a"}, {"kind": "inception", "weights": "b"}]
    options = checked(project, named)
    assert [type(network).__name__ for network in options.networks] == [
        "MobileNetV2Options",
        "InceptionOptions",
    ]
    assert options.model_dump(mode="json")["networks"] == named
    assert checked(project, []).networks == ()


@pytest.mark.parametrize(
    ("networks", "says"),
    [
        ([{"kind": "vgg", "weights": "a"}], "'vgg' is not one of the extractors; choose from"),
        ([{"kind": "mobilenet_v2"}], "mobilenet_v2: weights is missing"),
        ([{"kind": "mobilenet_v2", "weights": ""}], "at least 1 character"),
        ([{"kind": "classifier", "weights": "a"}], "own judge always looks"),
        ([{"kind": "inception", "weights": "a"}] * 2, "each network once"),
        (["mobilenet_v2"], "must be a list of {kind: NAME, weights: PATH}"),
        ("mobilenet_v2", "valid array"),
    ],
)
def test_anything_else_is_refused(project, networks, says):
    with pytest.raises(ParamsError, match="evaluate.networks") as refused:
        checked(project, networks)
    assert says in str(refused.value)
