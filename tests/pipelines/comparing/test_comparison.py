"""Files that say what is compared: all of them valid, adapted ones, what is wrong told."""

import pytest
from ruamel.yaml import YAML

from pipelines.comparing import comparison
from pipelines.comparing.comparison import Member, comparisons, read_comparison
from pipelines.settings.params_overlay import checked_values, overlaid, preset_path
from stages.core.errors import ParamsError
from tests.architecture.imports import PROJECT

PARAMS = (PROJECT / "params.yaml").read_text()


@pytest.mark.parametrize("name", comparisons())
def test_every_member_of_every_comparison_is_valid(name):
    compared = read_comparison(name)
    base = YAML(typ="safe").load(compared.changed(PARAMS))
    for what in compared.members.values():
        for prior in ({}, {"prior": what.own_prior}):
            # As the overlay of whole sections does, of which there are tests, and much faster.
            checked_values({**base, **what.sections, **prior}, what.values)


def written(folder, monkeypatch, name, text):
    monkeypatch.setattr(comparison, "FOLDER", folder)
    (folder / f"{name}.yaml").write_text(text)


BASE = """
preset: null
autoencoder_seconds: 1.0
prior_seconds: 1.0
members:
  a:
    about: first
    sections: {bottleneck: {kind: fsq, levels: [4]}}
    own_prior: {kind: uniform}
    learned: true
  b: {about: second, sections: {}, own_prior: {kind: uniform}, learned: true}
"""
ADAPTED = """
preset: fashion_vq
autoencoder_seconds: 2.0
prior_seconds: 3.0
members_of: base
values: {VALUES}
members:
  b: {about: another, sections: {}, own_prior: {kind: uniform}, learned: false}
"""


def test_a_comparison_adapts_the_members_of_another(tmp_path, monkeypatch):
    written(tmp_path, monkeypatch, "base", BASE)
    written(
        tmp_path, monkeypatch, "more", ADAPTED.replace("{VALUES}", "{bottleneck.levels: [8, 8]}")
    )
    more = read_comparison("more")
    assert more.changed(PARAMS) == overlaid(PARAMS, preset_path("fashion_vq").read_text(), {})
    assert (more.preset, more.autoencoder_seconds, more.prior_seconds) == ("fashion_vq", 2.0, 3.0)
    assert more.members["a"].sections == {"bottleneck": {"kind": "fsq", "levels": [8, 8]}}
    assert more.members["b"].about == "another" and list(more.members) == ["a", "b"]
    assert read_comparison("base").members["a"].sections["bottleneck"]["levels"] == [4]


def test_a_comparison_changes_its_preset_before_its_members_do(tmp_path, monkeypatch):
    written(tmp_path, monkeypatch, "base", BASE)
    text = "preset_values: {evaluate.max_images: 7}\n" + ADAPTED.replace("{VALUES}", "{}")
    written(tmp_path, monkeypatch, "more", text)
    content = YAML(typ="safe").load(read_comparison("more").changed(PARAMS))
    assert content["evaluate"]["max_images"] == 7


def test_a_member_changes_values_after_its_sections():
    member = Member(
        about="another seed",
        sections={"prior": {"kind": "uniform"}, "bottleneck": {"kind": "fsq", "levels": [4]}},
        values={"seed": 3, "bottleneck.levels": [8]},
        own_prior={"kind": "uniform"},
        learned=False,
    )
    content = YAML(typ="safe").load(member.changed(PARAMS))
    assert (content["seed"], content["prior"]) == (3, {"kind": "uniform"})
    assert content["bottleneck"] == {"kind": "fsq", "levels": [8]}


def test_a_value_that_no_member_has_is_told(tmp_path, monkeypatch):
    written(tmp_path, monkeypatch, "base", BASE)
    written(tmp_path, monkeypatch, "more", ADAPTED.replace("{VALUES}", "{bottleneck.level: 8}"))
    with pytest.raises(ParamsError, match=r"values bottleneck.level: must be a key .* of base has"):
        read_comparison("more")


def test_a_comparison_takes_some_members_of_another_without_their_priors(tmp_path, monkeypatch):
    written(tmp_path, monkeypatch, "base", BASE)
    some = "only: [a]\nlearned: false\n" + ADAPTED.replace("{VALUES}", "{}")
    written(tmp_path, monkeypatch, "some", some[: some.index("members:\n")] + "members: {}\n")
    [(name, member)] = read_comparison("some").members.items()
    assert name == "a" and not member.learned
    written(tmp_path, monkeypatch, "wrong", some.replace("[a]", "[c]"))
    with pytest.raises(ParamsError, match=r"wrong.yaml: only: no member 'c'; there are: a, b"):
        read_comparison("wrong")


def test_comparisons_say_how_they_are_run():
    for name in comparisons():
        lines = (PROJECT / "pipelines/families" / f"{name}.yaml").read_text().splitlines()
        assert lines[0].startswith("# ") and lines[1] == f"# python -m pipelines families {name}"


def test_unknown_names_are_told():
    with pytest.raises(ParamsError, match="families 'digit': no such file; did you mean 'digits'"):
        read_comparison("digit")
