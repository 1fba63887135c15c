"""Sections that do not go together are told before anything runs: a case for every rule."""

from copy import deepcopy
from pathlib import Path

import pytest
import torch
from ruamel.yaml import YAML

from stages.core.artifacts import Artifact
from stages.core.errors import ParamsError
from stages.core.sections import read_yaml
from stages.params import RULES, check, require_suitable_data
from tests.architecture.imports import PROJECT

KL = {"kind": "gaussian", "layout": "spatial", "channels": 4}
DIFFUSION = {
    "kind": "diffusion",
    "blocks": 2,
    "width": 64,
    "draws": 4,
    "bound_points": 8,
    "noise_floor": 0.01,
    "sampling_steps": 12,
    "eta": 1.0,
}
SHAPES = read_yaml(PROJECT / "pipelines/presets/shapes_beta.yaml")["dataset"] | {"channels": 3}

# A section given with its `kind` replaces what stands there; without, its fields are merged.
CASES = {
    "_grid_divides": ({"backbone": {"widths": [16] * 5}}, "multiple"),
    "_codes_fit_their_type": (
        {"bottleneck": {"kind": "fsq", "levels": [256] * 5}},
        "at most 32 bits",
    ),
    "_prior_models_the_latents": ({"bottleneck": KL}, "choose a head for continuous"),
    "_guidance_has_what_it_needs": (
        {"sampling": {"guidance": 2.0}, "prior": {"label_dropout": 0.0}},
        "label_dropout must be above 0",
    ),
    "_orders_become_raster_in_time": (
        {"prior": {"order": "random_to_raster", "random_until": 10, "raster_from": 301}},
        "must not exceed train_prior.steps",
    ),
    "_sampling_suits_the_latents": (
        {"sampling": {"variance_temperature": 0.9}},
        "variance_temperature: must be 1 for codes",
    ),
    "_settings_mean_something": (
        {"bottleneck": KL, "head": DIFFUSION, "sampling": {"top_k": 5}},
        "sampling.top_k: must be 0 with head.kind 'diffusion'",
    ),
    "_models_can_be_built_and_drawn_from": (
        {"head": {"kind": "factorised", "first": 5}},
        "head.first: must divide the number of codes",
    ),
    "_steps_to_hasten_are_there": (
        {"prior": {"kind": "uniform"}, "sampling": {"compile": True}},
        "sampling.compile: .* prior.kind 'uniform'",
    ),
    "_likelihood_suits_the_images": (
        {"likelihood": {"kind": "bernoulli", "binarise": "dynamic"}, "dataset": SHAPES},
        "gives 3 channels",
    ),
    "_weights_need_a_density": (
        {"bottleneck": KL, "head": DIFFUSION, "evaluate": {"iwae_prior_draws": 4}},
        "iwae_prior_draws: must be 0",
    ),
    "_samples_suffice": (
        {"sampling": {"count": 3}},
        "sampling.count: must be at least 4, for distances between sets; got 3",
    ),
    "_coded_images_have_bits": (
        {"evaluate": {"coded_images": 4}},
        "must be 0 here, got 4; .* 8-bit images",
    ),
    "_adaptive_weights_need_a_graph": (
        {"adversary": {"weight": 0.5, "layers": 1}, "train_autoencoder": {"compile": True}},
        "adversary.adaptive",
    ),
    "_every_process_has_a_piece": (
        {"compute": {"processes": 4}, "train_judge": {"pieces": 2}},
        "train_judge.pieces: must be 1 .* the 4 processes",
    ),
    "_an_adversary_sees_whole_batches": (
        {"adversary": {"weight": 0.5, "layers": 1}, "train_autoencoder": {"pieces": 2}},
        "train_autoencoder.pieces must be 1",
    ),
    "_cut_weights_lie_in_one_piece": (
        {
            "compute": {"processes": 2, "prior_strategy": "fsdp"},
            "train_prior": {"pieces": 2, "channels_last": True},
        },
        "train_prior.channels_last: must be false",
    ),
}


@pytest.fixture
def defaults(project):
    return YAML(typ="safe").load(project / "params.yaml")


def changed(defaults, changes):
    raw = deepcopy(defaults)
    for section, values in changes.items():
        raw[section] = values if "kind" in values else raw[section] | values
    return raw


def test_what_is_committed_breaks_none(defaults):
    check(defaults, source="params.yaml")


def test_every_rule_has_a_case():
    assert list(CASES) == [rule.__name__ for rule in RULES]


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_a_rule_says_what_must_hold(defaults, rule):
    changes, message = CASES[rule.__name__]

    with pytest.raises(ParamsError, match=message):
        check(changed(defaults, changes), source="params.yaml")


def test_classes_that_the_data_are_known_not_to_have_are_refused(defaults):
    message = r"sampling.classes: must be classes from 0 to 9; got \[10\]"
    with pytest.raises(ParamsError, match=message):
        check(changed(defaults, {"sampling": {"classes": [3, 10]}}), source="params.yaml")


def test_an_adversary_is_held_against_the_images(defaults):
    message = "adversary.layers: 2 halvings need images of at least 12 pixels"
    with pytest.raises(ParamsError, match=message):
        check(changed(defaults, {"adversary": {"weight": 0.5}}), source="params.yaml")
    check(changed(defaults, {"adversary": {"weight": 0.5, "layers": 1}}), source="params.yaml")


UNSEEN = {
    "kind": "image_folder",
    "watch": "images",
    "validation_fraction": 0.1,
    "test_fraction": 0.1,
    "path": "images",
    "resolution": 8,
    "channels": 1,
    "filter": "lanczos",
    "background": "white",
    "on_bad_file": "fail",
}
CONDITIONAL = {
    "autoencoder": {"kind": "conditional", "blocks": 1},
    "bottleneck": KL,
    "prior": {"kind": "standard_normal"},
}


def artifact(type, about):
    return {type: Artifact(Path("data") / type, type, "", {}, about)}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": {"classes": [0, 4]}}, r"classes: must be classes from 0 to 3; got \[4\]"),
        ({"sampling": {"classes": [3, 3]}}, None),
        ({"sampling": {"guidance": 2.0}}, None),
        ({"sampling": {"rejection_tries": 2}}, None),
        (CONDITIONAL | {"sampling": {"classes": [4]}}, "must be classes from 0 to 3"),
    ],
)
def test_what_is_drawn_is_held_against_the_classes_that_were_found(defaults, changes, message):
    params = check(changed(defaults, changes | {"dataset": UNSEEN}), source="params.yaml")
    header = {
        "format": "latentline latents",
        "version": 1,
        "kind": "codes",
        "num_codes": 64,
        "channels": 0,
        "grid_height": 4,
        "grid_width": 4,
        "scale": 1.0,
        "deterministic": False,
        "precision": "float32",
        "views": ["identity"],
        "num_classes": 4,
        "class_names": None,
        "autoencoder": "a" * 64,
        "prepared": "b" * 64,
        "first_stage": {},
    }
    require_suitable_data(params, {})
    for inputs in (
        artifact("prepared", {"class_names": ["ant", "bee", "cat", "dog"]}),
        artifact("latents", {"header": header}),
    ):
        if message is None:
            require_suitable_data(params, inputs)
        else:
            with pytest.raises(ParamsError, match=message):
                require_suitable_data(params, inputs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sampling": {"classes": [0]}}, r"sampling.classes: must be \[\] .* got \[0\]"),
        ({"sampling": {"guidance": 2.0}}, "sampling.guidance: must be 1 .*; got 2.0"),
        ({"sampling": {"rejection_tries": 2}}, "sampling.rejection_tries: must be 1 .*; got 2"),
        (CONDITIONAL, "autoencoder.kind: 'conditional' learns images given their class"),
        ({}, None),
    ],
)
def test_data_without_classes_are_refused_what_needs_some(defaults, changes, message):
    params = check(changed(defaults, changes | {"dataset": UNSEEN}), source="params.yaml")
    inputs = artifact("prepared", {"class_names": None})
    if message is None:
        require_suitable_data(params, inputs)
        return
    with pytest.raises(ParamsError, match=message):
        require_suitable_data(params, inputs)


def test_a_prior_that_never_knows_classes_is_told_before_the_data_are(defaults):
    changes = {"dataset": UNSEEN, "prior": {"kind": "uniform"}, "sampling": {"classes": [0]}}
    with pytest.raises(ParamsError, match=r"sampling.classes: must be \[\] for a prior without"):
        check(changed(defaults, changes), source="params.yaml")


def test_models_that_are_tried_take_no_memory_and_no_random_numbers(defaults):
    before = torch.get_rng_state()
    huge = {"backbone": {"widths": [8192]}, "prior": {"width": 65536, "layers": 100}}
    check(changed(defaults, huge), source="params.yaml")
    assert torch.equal(torch.get_rng_state(), before)
