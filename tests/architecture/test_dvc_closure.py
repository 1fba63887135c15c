"""DVC's dependencies are exactly the code a stage runs: nothing stale, nothing re-run in vain."""

import copy
import functools
import operator

import pytest
from dvc.stage.cache import _get_cache_hash

from stages.core.sections import read_yaml
from tests.architecture.imports import PROJECT, closure

DVC = read_yaml(PROJECT / "dvc.yaml")["stages"]
# Files that load members by name, and the sections of params.yaml that name them.
LOADERS = {
    "stages/prepare.py": {"dataset": "datasets"},
    "stages/assembly/first_stage.py": {
        "autoencoder": "autoencoders",
        "backbone": "backbones",
        "bottleneck": "bottlenecks",
        "likelihood": "likelihoods",
        "objective": "objectives",
    },
    "stages/assembly/second_stage.py": {"prior": "priors", "head": "heads"},
}
# Loads a list of members, which DVC cannot name one by one.
NETWORKS = "stages/evaluation/networks.py"
DEFAULTS = read_yaml(PROJECT / "params.yaml")
PRESETS = sorted((PROJECT / "pipelines/presets").glob("*.yaml"))
PARAMS = {"params": DEFAULTS} | {path.stem: DEFAULTS | read_yaml(path) for path in PRESETS}


def code_of(stage, params):
    """Files the stage runs with these parameters."""
    files = closure(PROJECT / "stages" / f"{stage}.py")
    names = {str(path.relative_to(PROJECT)) for path in files}
    for loader, sections in LOADERS.items():
        if loader in names:
            members = [
                PROJECT / "stages" / family / f"{params[section]['kind']}.py"
                for section, family in sections.items()
            ]
            files |= closure(*members)
    if NETWORKS in names:
        kinds = [network["kind"] for network in params["evaluate"]["networks"]]
        files |= closure(*(PROJECT / "stages/extractors" / f"{kind}.py" for kind in kinds))
    return {str(path.relative_to(PROJECT)) for path in files}


def declared(stage, params):
    """The stage's deps with ${section.kind} filled in."""
    found = []
    for dep in DVC[stage]["deps"]:
        for section, value in params.items():
            if isinstance(value, dict):
                dep = dep.replace(f"${{{section}.kind}}", str(value.get("kind")))
        found.append(dep)
    return found


@pytest.mark.parametrize("name", PARAMS)
@pytest.mark.parametrize("stage", DVC)
def test_every_file_a_stage_runs_is_a_dependency(stage, name):
    params = PARAMS[name]
    deps = declared(stage, params)
    missing = [
        file
        for file in sorted(code_of(stage, params))
        if not any(file == dep or file.startswith(f"{dep}/") for dep in deps)
    ]
    assert not missing, f"{stage}: add to deps in dvc.yaml: {missing}"


@pytest.mark.parametrize("stage", DVC)
def test_no_dependency_is_there_in_vain(stage):
    """Each is imported with the parameters of this file or of some preset."""
    used: set[str] = set()
    for params in PARAMS.values():
        code = code_of(stage, params)
        for raw, dep in zip(DVC[stage]["deps"], declared(stage, params), strict=True):
            if any(name == dep or name.startswith(f"{dep}/") for name in code):
                used.add(raw)
    vain = {dep for dep in DVC[stage]["deps"] if dep.startswith("stages/")} - used
    assert not vain, f"{stage}: not imported, so not a dependency: {vain}"


@pytest.mark.parametrize("stage", DVC)
def test_stages_follow_the_rules_of_the_seam(stage):
    entry = DVC[stage]
    assert entry["cmd"] == f"python -m stages.{stage}", "constant command: the run cache hashes it"
    assert f"data/runs/{stage}.json" in entry["outs"]
    assert not {"always_changed", "frozen"} & entry.keys()
    assert all(isinstance(out, str) for out in entry["outs"]), "no persist, no uncached outs"


def test_nothing_depends_on_the_run_markers():
    assert not [d for s in DVC.values() for d in s["deps"] if d.startswith("data/runs")]


def leaves(value, path=()):
    """(path, value) of everything that holds nothing further."""
    if isinstance(value, dict | list) and value:
        items = value.items() if isinstance(value, dict) else enumerate(value)
        for key, inner in items:
            yield from leaves(inner, (*path, key))
    else:
        yield path, value


@pytest.mark.parametrize("name", PARAMS)
def test_no_parameter_is_one_that_dvc_s_run_cache_forgets(name):
    """DVC leaves out what is called `size` or `nfiles`, at any depth: results of other values."""

    def key(params):
        return _get_cache_hash({"cmd": "x", "params": {"params.yaml": params}}, key=True)

    before = key(PARAMS[name])
    for path, _ in leaves(PARAMS[name]):
        changed = copy.deepcopy(PARAMS[name])
        *parents, last = path
        place = functools.reduce(operator.getitem, parents, changed)
        place[last] = "something else"
        assert key(changed) != before, path
