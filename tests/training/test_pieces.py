"""What the sections of params.yaml must agree on for several processes to share the work."""

import pytest
from ruamel.yaml import YAML

from stages.core.errors import ParamsError
from stages.params import check


def checked(project, **changes):
    raw = YAML(typ="safe").load(project / "params.yaml")
    for section, values in changes.items():
        raw[section] |= values
    return check(raw, source="test")


def test_a_stage_of_one_piece_stays_in_one_process(project):
    params = checked(project, compute={"processes": 8, "hosts": 2}, train_prior={"pieces": 16})
    assert params.compute.world_size == 16 and params.train_judge.pieces == 1


def test_every_process_needs_a_piece(project):
    with pytest.raises(ParamsError, match=r"train_prior.pieces: must be 1 .* at least the 4"):
        checked(project, compute={"processes": 2, "hosts": 2}, train_prior={"pieces": 3})


def test_an_adversary_wants_the_whole_batch(project):
    with pytest.raises(ParamsError, match=r"adversary.weight: .*pieces must be 1 beside it; got 4"):
        checked(project, adversary={"weight": 0.5, "layers": 1}, train_autoencoder={"pieces": 4})


def test_what_is_cut_among_processes_lies_in_one_piece(project):
    cut = {"processes": 2, "hosts": 1, "prior_strategy": "fsdp"}
    with pytest.raises(ParamsError, match=r"channels_last: must be false where .* is fsdp"):
        checked(project, compute=cut, train_prior={"pieces": 2, "channels_last": True})
    checked(project, compute=cut, train_prior={"pieces": 2, "channels_last": False})
