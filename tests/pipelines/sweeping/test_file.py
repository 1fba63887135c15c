"""Sweeps that are shipped are valid; mistakes in one are told in one message."""

import copy
import re
import subprocess

import pytest
from ruamel.yaml import YAML

from pipelines.settings.line_config import SweepConfig
from pipelines.sweeping.file import Sweep, read_sweep, sweeps
from pipelines.sweeping.setup import prepare_sweep
from stages.core.errors import ParamsError
from stages.core.sections import validate
from tests.architecture.imports import PROJECT

GRID = YAML(typ="safe").load(
    """
    preset: null
    set: {}
    stages: [train_prior]
    objective: {stage: train_prior, figure: validation_nats_per_image, direction: lower}
    search: {kind: grid}
    over: {prior.layers: [1, 2]}
    parallel: 1
    pruning: null
    """
)

PRUNING = {
    "stage": "train_prior",
    "figure": "validation_nats_per_image",
    "from_step": 1,
    "peers": 1,
}


@pytest.mark.parametrize("name", sweeps())
def test_every_sweep_is_valid_and_says_how_it_is_run(name):
    plan = prepare_sweep(SweepConfig(name=name, workspace=str(PROJECT))).plan()
    assert plan[0].startswith(f"sweep {name}: ")
    lines = (PROJECT / "pipelines/sweeps" / f"{name}.yaml").read_text().splitlines()
    assert lines[0].startswith("# ") and lines[1] == f"# python -m pipelines sweep {name}"


def test_twenty_priors_need_one_encoding():
    plan = prepare_sweep(SweepConfig(name="priors_digits", workspace=str(PROJECT))).plan()
    counts = dict(line.split() for line in plan[1:])
    assert counts == {"prepare": "1", "train_autoencoder": "1", "encode": "1", "train_prior": "20"}
    assert "23 executions instead of 80" in plan[0]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"over": {}}, "over: "),
        ({"over": {"prior.layers": []}}, "over.prior.layers"),
        ({"over": {"prior.layers": [1, 2, 1]}}, "over.prior.layers: values must differ"),
        ({"over": {"prior.width": {"low": 1, "high": 2, "scale": "log"}}}, "grid needs a list"),
        ({"search": {"kind": "grid", "count": 3, "seed": 0}}, "must have no count and no seed"),
        ({"search": {"kind": "random"}}, "must have count and seed"),
        ({"search": {"kind": "magic"}}, "search.kind"),
        ({"objective": {"stage": "evaluate", "figure": "x", "direction": "up"}}, "direction"),
        (
            {"over": {"prior.layers": [1, 2], "prior": [{"kind": "uniform"}]}},
            "over.prior.layers: must not lie within another axis.*'prior'",
        ),
        ({"set": {"prior.layers": 3}}, "set.prior.layers: the axis 'prior.layers' sets it"),
        (
            {"set": {"prior.layers": 3}, "over": {"prior": [{"kind": "uniform"}]}},
            "set.prior.layers: the axis 'prior' sets it",
        ),
        ({"paralel": 2}, "did you mean 'parallel'"),
    ],
)
def test_mistakes_in_the_file(change, message):
    with pytest.raises(ParamsError, match=message):
        validate(Sweep, copy.deepcopy(GRID) | change, source="a sweep")


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ({"low": 2, "high": 1, "scale": "linear"}, "low must be below high"),
        ({"low": 0, "high": 1, "scale": "log"}, "low must be above 0"),
        ({"low": 0.5, "high": 2, "scale": "integer"}, "must be whole"),
    ],
)
def test_mistakes_in_a_range(axis, message):
    search = {"kind": "random", "count": 2, "seed": 0}
    with pytest.raises(ParamsError, match=message):
        validate(Sweep, GRID | {"search": search, "over": {"x": axis}}, source="a sweep")


def test_unknown_names_are_told():
    with pytest.raises(ParamsError, match="sweep 'prior_digits': no such file; did you mean"):
        read_sweep("prior_digits")


def prepared(tmp_path, monkeypatch, name="mine", given=None, **change):
    """A sweep file of the test's own over the project's params.yaml."""
    monkeypatch.setattr("pipelines.sweeping.file.FOLDER", tmp_path)
    with (tmp_path / f"{name}.yaml").open("w") as file:
        YAML(typ="safe").dump(GRID | change, file)
    return prepare_sweep(SweepConfig(name=name, workspace=str(PROJECT), set=given or {}))


@pytest.mark.parametrize("name", ["v1..2", "my sweep", "a~b", ".hidden", "end.", "x@{1}", "a:b"])
def test_a_name_that_git_cannot_refer_to_is_told_before_anything_runs(tmp_path, monkeypatch, name):
    with pytest.raises(ParamsError, match=f"{re.escape(repr(name))}: .* rename the file"):
        prepared(tmp_path, monkeypatch, name)


@pytest.mark.parametrize("name", ["v1.2", "my-sweep", "a--b", "end-", "größe_7"])
def test_names_that_are_let_through_are_gits(tmp_path, monkeypatch, name):
    [branch, *_] = prepared(tmp_path, monkeypatch, name).branches([{"prior.layers": 1}])
    subprocess.run(["git", "check-ref-format", f"refs/exps/{branch.name}"], check=True)


def test_a_bad_value_of_any_branch_is_told_before_anything_runs(tmp_path, monkeypatch):
    over = {"prior.width": [96, 97, 96.5], "train_prior.steps": [99, 0]}
    sweep = prepared(tmp_path, monkeypatch, over=over)
    with pytest.raises(ParamsError) as caught:
        sweep.plan()
    told = str(caught.value)
    assert "branch 2 (prior.width=96, train_prior.steps=0): params.yaml: train_prior.steps" in told
    assert "and 2 more of 6 branches" in told
    wrong = prepared(tmp_path, monkeypatch, over={"prior.layer": [1]})
    with pytest.raises(ParamsError, match=r"prior\.layer is not in params\.yaml; did you mean"):
        wrong.plan()


def test_a_given_value_that_an_axis_replaces_is_refused_and_one_beneath_an_axis_is_not(
    tmp_path, monkeypatch
):
    with pytest.raises(ParamsError, match=r"--set prior\.layers: the axis 'prior\.layers' sets it"):
        prepared(tmp_path, monkeypatch, given={"prior.layers": 3})
    with pytest.raises(ParamsError, match=r"--set head\.tied: the axis 'head' sets it"):
        heads = [{"kind": "categorical", "tied": True}]
        prepared(tmp_path, monkeypatch, over={"head": heads}, given={"head.tied": False})
    head = {"kind": "categorical", "tied": True}
    over = {"head.tied": [False, True], "prior.layers": [2]}
    sweep = prepared(
        tmp_path, monkeypatch, set={"head": head}, over=over, given={"prior.width": 32}
    )
    assert "2 branches" in sweep.plan()[0], "of a section under all branches a value may be varied"


def test_results_under_other_values_stand_side_by_side(tmp_path, monkeypatch):
    def named(**given):
        given = {name.replace("__", "."): value for name, value in given.items()}
        sweep = prepared(tmp_path, monkeypatch, given=given)
        assert sweep.folder.name == sweep.name and sweep.file == "mine"
        [branch] = sweep.branches([{"prior.layers": 1}])
        subprocess.run(["git", "check-ref-format", f"refs/exps/{branch.name}"], check=True)
        assert branch.name.startswith(f"{sweep.name}-")
        return sweep.name

    assert named() == "mine", "without them it is known by its file"
    assert named(seed=1) == "mine+seed=1"
    several = "mine+seed=1+train_prior.learning_rate=0.0001"
    assert named(train_prior__learning_rate=1e-4, seed=1) == several
    assert named(seed=1, train_prior__learning_rate=1e-4) == several, "in whatever order"
    digests = [
        named(head={"kind": "categorical", "tied": tied}, device=device)
        for tied in (True, False)
        for device in ("cpu", "auto")
    ]
    assert len(set(digests)) == 4 and all(re.fullmatch(r"mine\+\w{8}", each) for each in digests)


def test_stages_that_are_named_must_run(tmp_path, monkeypatch):
    objective = {"stage": "evaluate", "figure": "mse", "direction": "lower"}
    with pytest.raises(
        ParamsError, match=r"objective\.stage must be one that runs; got 'evaluate'"
    ):
        prepared(tmp_path, monkeypatch, objective=objective)
    with pytest.raises(ParamsError, match=r"pruning\.stage must be one that runs"):
        prepared(tmp_path, monkeypatch, pruning=PRUNING | {"stage": "train_judge"})


def test_pruning_that_could_never_come_is_told_before_anything_runs(tmp_path, monkeypatch):
    with pytest.raises(
        ParamsError,
        match=r"must be a training; got 'encode', there are: train_autoencoder, train_prior",
    ):
        prepared(tmp_path, monkeypatch, pruning=PRUNING | {"stage": "encode"})
    late = PRUNING | {"from_step": 200}
    over = {"train_prior.steps": [199, 150]}
    with pytest.raises(ParamsError, match=r"from_step .* got 200, and no branch has more than 199"):
        prepared(tmp_path, monkeypatch, pruning=late, over=over).plan()
    over = {"train_prior.steps": [199, 200]}
    assert prepared(tmp_path, monkeypatch, pruning=late, over=over).plan(), "one is enough"


def test_a_figure_that_a_stage_never_writes_is_told_before_anything_runs(tmp_path, monkeypatch):
    wrong = {"figure": "validation_nats"}
    told = "figure: must be one that train_prior writes; got 'validation_nats', did you mean"
    with pytest.raises(ParamsError, match=f"sweep mine: objective.{told}"):
        prepared(tmp_path, monkeypatch, objective=GRID["objective"] | wrong)
    with pytest.raises(ParamsError, match=f"sweep mine: pruning.{told}"):
        prepared(tmp_path, monkeypatch, pruning=PRUNING | wrong)


def test_optuna_is_checked_at_the_ends_of_its_axes(tmp_path, monkeypatch):
    search = {"kind": "optuna", "count": 7, "seed": 0}
    over = {"train_prior.learning_rate": {"low": 1e-4, "high": 1e-2, "scale": "log"}}
    plan = prepared(tmp_path, monkeypatch, search=search, over=over).plan()
    assert "7 branches of 4 stages, at most 10 executions instead of 28" in plan[0]
    wrong = over | {"prior.layers": {"low": 0, "high": 3, "scale": "integer"}}
    with pytest.raises(ParamsError, match=r"prior\.layers"):
        prepared(tmp_path, monkeypatch, search=search, over=wrong).plan()
