"""What branches have in common is found, and each has a name of its own that lasts."""

import pytest

from pipelines.sweeping.file import Range
from pipelines.sweeping.plan import (
    InvalidBranches,
    PlannedBranch,
    executions,
    plan_branches,
    shared_executions,
    shown,
)
from tests.pipelines.workspace.test_stage_keys import DESCRIBED, GRAPH, PROJECT

BASE = (PROJECT / "params.yaml").read_text()
STAGES = ["prepare", "train_autoencoder", "encode", "train_prior"]


def plan(*points):
    over = {name: [point[name] for point in points] for name in points[0]} if points else {}
    return plan_branches(DESCRIBED, GRAPH, STAGES, "mine", BASE, over, points)


def test_a_branch_keeps_its_name_when_others_come():
    one, two = ({"prior.layers": 1}, {"prior.layers": 2})
    assert plan(one, two)[0].name == plan(two, one)[1].name == plan(one)[0].name
    assert plan(one)[0].name != plan(two)[0].name
    assert plan(one)[0].name.startswith("mine-")
    assert "layers: 1\n" in plan(one)[0].params
    assert plan(one)[0].told == "prior.layers=1"


def test_two_autoencoders_with_two_priors_each():
    branches = plan(
        *(
            {"bottleneck.num_codes": codes, "prior.layers": layers}
            for codes in (32, 64)
            for layers in (1, 2)
        )
    )
    assert executions(branches) == {
        "prepare": 1,
        "train_autoencoder": 2,
        "encode": 2,
        "train_prior": 4,
    }
    shared = shared_executions(branches)
    assert [[(each.stage, each.count) for each in of_stage] for of_stage in shared] == [
        [("prepare", 4)],
        [("train_autoencoder", 2), ("train_autoencoder", 2)],
        [("encode", 2), ("encode", 2)],
    ], "priors are nobody else's"
    for of_stage in shared:
        owners = [each.owner.name for each in of_stage]
        assert len(set(owners)) == len(owners), "those of one stage run in folders of their own"
    assert shared[1][0].owner is branches[0] and shared[1][1].owner is branches[2]


def test_nothing_is_shared_by_one_or_by_none():
    assert shared_executions(plan({"prior.layers": 1})) == []
    assert shared_executions([]) == [] and executions([]) == {}


def test_whole_sections_are_values_too():
    [branch] = plan({"head": {"kind": "categorical", "tied": True}})
    assert branch.told == "head=categorical"
    assert "tied: true" in branch.params


def test_what_is_wrong_with_a_branch_is_known_by_its_name():
    good, bad = {"prior.layers": 1}, {"prior.layers": 0}
    with pytest.raises(
        InvalidBranches, match=r"sweep mine, branch 2 \(prior\.layers=0\)"
    ) as caught:
        plan(good, bad)
    [(name, why)] = caught.value.reasons.items()
    assert name.startswith("mine-") and name != plan(good)[0].name
    assert why.startswith("params.yaml: prior.layers")


def test_values_are_shown_short():
    assert [shown(v, []) for v in (0.00031622, [1, 2], "x", True)] == [
        "0.0003162",
        "[1, 2]",
        "x",
        "True",
    ]
    assert shown(0.00031622, Range(low=0.0, high=1.0, scale="linear")) == "0.0003162"
    assert isinstance(plan({"prior.layers": 1})[0], PlannedBranch)


def test_no_two_values_of_an_axis_are_shown_alike():
    deep = {"kind": "transformer", "layers": 4, "width": 64, "order": "raster"}
    wide = {"kind": "transformer", "layers": 1, "width": 64, "order": "random"}
    tied = {"kind": "transformer", "layers": 1, "width": 64, "order": "random", "tied": True}
    priors = [{"kind": "uniform"}, deep, wide, tied]
    assert [shown(each, priors) for each in priors] == [
        "uniform",
        "transformer(layers=4, order=raster)",
        "transformer(layers=1, order=random)",
        "transformer(layers=1, order=random, tied=true)",
    ]
    assert shown(deep, priors[:2]) == "transformer", "alone of its kind it needs no more"
    axes = [[1.00001, 1.00002], [1, "1"], [[1.0], "[1.0]"], [{"a": 1}, {"a": 2}], [deep, wide]]
    axes += [[{"kind": "x"}, {"kind": "x", "a": 1}], [{"kind": "x"}, "x"]]
    for axis in axes:
        assert len({shown(value, axis) for value in axis}) == len(axis), axis
