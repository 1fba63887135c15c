import json
from dataclasses import FrozenInstanceError, fields, replace

import pytest

from stages.core.errors import ArtifactError
from stages.metrics.figure import Figure, read_figures, write_figures
from stages.metrics.protocol import Protocol, SamplerRecord
from tests.metrics.examples import PROTOCOL

SECTION = {
    "count": 12,
    "seed": 5,
    "classes": [1, 0],
    "temperature": 0.9,
    "guidance": 1.5,
    "pixels": "mean",
    "top_k": 3,
    "batch_size": 4,
}
FULL = PROTOCOL.also(
    extractor="a network",
    extractor_sha256="cd" * 32,
    label_balance={"one": 5, "two": 7},
    antialias=True,
    sampler=SamplerRecord.of(SECTION),
    seed=3,
    parts={"prior": "ef" * 32},
    bins=20,
    interval={"level": 0.95, "method": "bootstrap", "draws": [1, 2.5, None]},
    found={"standard_error": 0.25},
)


def test_it_survives_json_whole() -> None:
    for protocol in (PROTOCOL, FULL):
        text = json.dumps(protocol.to_json())
        assert Protocol.from_json(json.loads(text)) == protocol
        assert json.loads(text).keys() == {one.name for one in fields(Protocol)}


@pytest.mark.parametrize(
    "damage",
    [
        {"surprise": 1},
        {"reference_n": "17"},
        {"reference_n": None},
        {"sampler": {**FULL.to_json()["sampler"], "temperature": "high"}},
        {"label_balance": {"one": 1.5}},
    ],
)
def test_what_is_no_protocol_is_refused(damage: dict) -> None:
    with pytest.raises(ArtifactError, match=next(iter(damage))):
        Protocol.from_json({**FULL.to_json(), **damage})


def test_a_missing_field_is_refused() -> None:
    values = PROTOCOL.to_json()
    del values["reference_sha256"]
    with pytest.raises(ArtifactError, match="reference_sha256"):
        Protocol.from_json(values)


def test_fields_are_replaced_and_details_added() -> None:
    more = FULL.also(resize="bicubic", subsets=7)
    assert more.resize == "bicubic"
    assert more.details == FULL.details | {"subsets": 7}
    assert FULL.resize == "none" and "subsets" not in FULL.details
    assert FULL.also() == FULL
    assert FULL.also(bins=30).also(bins=20) == FULL
    with pytest.raises(FrozenInstanceError):
        FULL.resize = "bicubic"


def test_details_are_plain() -> None:
    for value in ((1, 2), {1: 2}, object()):
        with pytest.raises(AssertionError, match="plain"):
            PROTOCOL.also(bad=value)


def test_the_sampler_keeps_every_setting() -> None:
    found = SamplerRecord.of(SECTION)
    assert (found.count, found.classes, found.guidance) == (12, (1, 0), 1.5)
    assert found.settings == {"top_k": 3, "batch_size": 4}


def test_figures_survive_their_file(tmp_path) -> None:
    one = Figure("mig", 0.25, "share", "higher", 17, FULL, interval=(0.2, 0.31))
    figures = {"mig": one, "plain": replace(one, name="plain", interval=None, value=4)}
    write_figures(tmp_path / "figures.json", figures)
    assert read_figures(tmp_path) == read_figures(tmp_path / "figures.json") == figures


@pytest.mark.parametrize(
    "damage", [{"direction": "up"}, {"interval": [1]}, {"n": 1.5}, {"value": "1"}, {"more": 1}]
)
def test_what_is_no_figure_is_refused_by_the_name_of_its_file(tmp_path, damage: dict) -> None:
    figure = Figure("mig", 0.25, "share", "higher", 17, PROTOCOL).to_json()
    (tmp_path / "figures.json").write_text(json.dumps({"mig": {**figure, **damage}}))
    with pytest.raises(ArtifactError, match=r"figures\.json: .*figure"):
        read_figures(tmp_path)
    with pytest.raises(ArtifactError, match="no such file"):
        read_figures(tmp_path / "elsewhere")
