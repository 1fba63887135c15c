"""Parameters are strict, and every refusal names the field, what must hold and what came."""

from typing import Literal

import pytest
from pydantic import Field, create_model

from stages.core.errors import ParamsError
from stages.core.sections import Section, load_member, load_yaml, parse_params, read_yaml
from stages.priors.base import Prior, PriorOptions


class Schedule(Section):
    shape: Literal["cosine", "linear"]
    rate: float = Field(gt=0)
    widths: tuple[int, ...]


class Params(Section):
    schedule: Schedule
    steps: int


GOOD = {"schedule": {"shape": "cosine", "rate": 1e-4, "widths": [3, 4]}, "steps": 5}


def parse(raw, strict=True):
    return parse_params(Params, raw, source="params.yaml", strict=strict)


def changed(**schedule):
    return {**GOOD, "schedule": {**GOOD["schedule"], **schedule}}


def test_reads_yaml_as_dvc_does(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("schedule: {shape: cosine, rate: 1e-4, widths: [3, 4]}\nsteps: 5\n")
    params = parse(read_yaml(path))
    assert params.schedule.rate == 1e-4
    assert params.schedule.widths == (3, 4)


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (changed(rate="1e-4"), "params.yaml: schedule.rate: Input should be a valid number; got"),
        (changed(rate=0), "schedule.rate: Input should be greater than 0; got 0"),
        (changed(shape="cubic"), "schedule.shape: Input should be 'cosine' or 'linear'; got"),
        (changed(widths=[1.5]), "schedule.widths.0: Input should be a valid integer"),
        (changed(rat=1.0), "schedule.rat is not a known parameter; did you mean 'rate'?"),
        ({**GOOD, "step": 5}, "step is not a known parameter; did you mean 'steps'?"),
        ({"steps": 5}, "schedule is missing"),
        ({**GOOD, "steps": True}, "steps: Input should be a valid integer; got True"),
        ({**GOOD, "schedule": None}, "schedule: Input should be an object"),
    ],
)
def test_refusals_name_field_rule_and_value(raw, message):
    with pytest.raises(ParamsError) as caught:
        parse(raw)
    assert message in str(caught.value)


def test_a_stage_reads_its_own_sections_only():
    assert parse({**GOOD, "prior": {"kind": "?"}}, strict=False).steps == 5


def test_sections_are_frozen():
    with pytest.raises(ValueError, match="frozen"):
        parse(GOOD).steps = 6


@pytest.mark.parametrize("text", ["a: [", "- 1", ""])
def test_unreadable_files_are_one_message(tmp_path, text):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(ParamsError, match="params.yaml: "):
        read_yaml(path)


def test_missing_file_says_where_to_run(tmp_path):
    with pytest.raises(ParamsError, match="run from the root of the project"):
        read_yaml(tmp_path / "params.yaml")


def test_an_unknown_member_lists_the_known_ones():
    class One(Section):
        prior: PriorOptions

    with pytest.raises(ParamsError) as caught:
        parse_params(One, {"prior": {"kind": "gpt"}}, source="params.yaml", strict=True)
    assert "prior.kind: 'gpt' is not one of the priors; choose from" in str(caught.value)
    assert "transformer" in str(caught.value)
    with pytest.raises(ParamsError, match="must name a member; got None"):
        parse_params(One, {"prior": {}}, source="params.yaml", strict=True)


def test_a_member_is_found_by_its_file_name():
    assert load_member(Prior, "uniform").__module__ == "stages.priors.uniform"


LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object/apply:os.system [id]", "not valid YAML"),
        ("a: !!python/name:os.system", "not valid YAML"),
        (LAUGHS, "aliases stand for more than"),
        ("a: &a [*a]", "nested at most"),
        ("a: " + "[" * 1500 + "]" * 1500, "nested at most"),
        ("a: " + "{b: " * 60 + "1" + "}" * 60, "nested at most"),
        ("a: 1\na: 2", "not valid YAML"),
        ("a: " + "9" * 10_000, "cannot be read"),
        ("a: 2026-02-31", "cannot be read"),
        ("a: " + "x" * 2**23, "at most 4194304 characters"),
    ],
    ids=["apply", "name", "laughs", "circle", "deep", "levels", "twice", "digits", "day", "long"],
)
def test_yaml_tricks_are_refused(text, message):
    with pytest.raises(ParamsError) as caught:
        load_yaml(text, "preset evil")
    assert str(caught.value).startswith("preset evil: ") and message in str(caught.value)


@pytest.mark.parametrize("kind", ["../../evil", "base", "__init__", "vq.Options", "", "a b", "os"])
def test_a_kind_names_a_file_of_its_family_and_nothing_else(kind):
    with pytest.raises(ParamsError, match="is not one of the priors; choose from"):
        load_member(Prior, kind)


def test_the_mark_that_some_editors_put_first_is_no_part_of_a_file(tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text("seed: 1\n", encoding="utf-8-sig")
    assert read_yaml(path) == {"seed": 1}


def test_a_folder_is_no_file_of_parameters(tmp_path):
    with pytest.raises(ParamsError, match="must be a file, is a folder"):
        read_yaml(tmp_path)


@pytest.mark.parametrize("name", ["size", "nfiles"])
def test_no_option_has_a_name_that_dvc_forgets(name):
    with pytest.raises(AssertionError, match="rename it"):
        create_model("Forgotten", __base__=Section, **{name: (int, ...)})
