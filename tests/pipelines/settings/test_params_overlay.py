"""params.yaml for a run: {**params, **preset}, single values, comments kept, nothing invalid."""

import sys
import textwrap
import types
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from pipelines.settings import params_overlay
from pipelines.settings.params_overlay import (
    apply_overlay,
    overlaid,
    parse_override,
    preset_path,
    presets,
)
from stages.core.errors import ParamsError
from tests.pipelines.trivial_line import Line

PARAMS = textwrap.dedent("""\
    # All numbers of a run.
    seed: 0  # root of randomness

    # What stands between encoder and decoder.
    bottleneck:
      kind: ema_vq
      num_codes: 64  # K
      decay: 0.99
    # How it is trained.
    training:
      rate: 3e-4
      # every so many steps
      period: 100
      widths: [64, 128]
""")

PRESET = textwrap.dedent("""\
    # Finite scalar quantization; 3 minutes on a laptop.
    bottleneck:
      kind: fsq
      levels: [8, 5, 5]  # 200 codes
""")


def loaded(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def test_a_preset_replaces_sections_whole() -> None:
    after = overlaid(PARAMS, PRESET, {})
    assert loaded(after) == {**loaded(PARAMS), **loaded(PRESET)}
    assert "num_codes" not in after


def test_comments_of_both_files_live_on() -> None:
    after = overlaid(PARAMS, PRESET, {"training.period": 7})
    for comment in (
        "# All numbers",
        "# root of randomness",
        "# What stands between",
        "# 200 codes",
        "# How it is trained.",
        "# every so many steps",
    ):
        assert comment in after
    assert "laptop" not in after  # the preset's heading speaks about the preset


def test_other_lines_are_untouched() -> None:
    changed = set(PARAMS.splitlines()) ^ set(overlaid(PARAMS, None, {"seed": 1}).splitlines())
    assert changed == {"seed: 0  # root of randomness", "seed: 1  # root of randomness"}


def test_a_section_the_file_lacks_is_appended() -> None:
    after = overlaid(PARAMS, "head:\n  kind: categorical\n", {})
    assert list(loaded(after)) == ["seed", "bottleneck", "training", "head"]


def test_applying_twice_is_applying_once() -> None:
    once = overlaid(PARAMS, PRESET, {"training.rate": 1e-4})
    assert overlaid(once, PRESET, {"training.rate": 1e-4}) == once


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a.b=1e-4", 1e-4),
        ("a.b=3", 3),
        ("a.b=on", "on"),  # YAML 1.1 would say true
        ("a.b=true", True),
        ("a.b=null", None),
        ("a.b=[1, 2.5]", [1, 2.5]),
        ("a.b={kind: fsq}", {"kind": "fsq"}),
        ("a.b=x=y", "x=y"),
        ("a.b=", None),
    ],
)
def test_values_are_yaml(text: str, value: object) -> None:
    parsed = parse_override(text)
    assert parsed == ("a.b", value)
    assert type(parsed[1]) is type(value)


@pytest.mark.parametrize("text", ["training.rate", "=3", "a.b=[1,"])
def test_malformed_overrides_are_refused(text: str) -> None:
    with pytest.raises(ParamsError, match="--set"):
        parse_override(text)


def test_an_unknown_path_names_its_neighbour() -> None:
    with pytest.raises(ParamsError, match=r"training\.rat is not .* did you mean 'training\.rate'"):
        overlaid(PARAMS, None, {"training.rat": 1})
    with pytest.raises(ParamsError, match=r"seed\.deep"):
        overlaid(PARAMS, None, {"seed.deep": 1})


def test_a_shared_anchor_is_refused_rather_than_lost() -> None:
    with pytest.raises(ParamsError):
        overlaid("a: &x {k: 1}\nb: *x\n", "a: {k: 2}\n", {})


@pytest.fixture
def checked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str]]:
    """A stand-in for `stages.params` that refuses a negative seed."""
    calls: list[tuple[Any, str]] = []

    def check(raw: dict[str, Any], *, source: str) -> None:
        calls.append((raw, source))
        if raw.get("seed", 0) < 0:
            raise ParamsError(f"{source}: seed must not be negative")

    module = types.ModuleType("stages.params")
    module.check = check  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stages.params", module)
    return calls


@pytest.fixture
def preset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    folder = tmp_path / "presets"
    folder.mkdir()
    (folder / "finite.yaml").write_text(PRESET)
    monkeypatch.setattr(params_overlay, "PRESETS", folder)
    return "finite"


def test_apply_writes_what_was_checked(
    tmp_path: Path, checked: list[tuple[Any, str]], preset: str
) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    said: list[str] = []
    assert apply_overlay(tmp_path, preset, {"seed": 5}, said.append)
    after = loaded((tmp_path / "params.yaml").read_text())
    assert checked[0][0] == after
    assert after["seed"] == 5
    assert "finite" in checked[0][1]
    assert "finite" in said[-1]
    assert not apply_overlay(tmp_path, preset, {"seed": 5}, said.append)


def test_an_invalid_result_leaves_the_file_alone(
    tmp_path: Path, checked: list[tuple[Any, str]]
) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    with pytest.raises(ParamsError, match="negative"):
        apply_overlay(tmp_path, None, {"seed": -1}, print)
    assert (tmp_path / "params.yaml").read_text() == PARAMS
    assert [path.name for path in tmp_path.iterdir()] == ["params.yaml"]


def test_only_uncommitted_changes_are_kept(line: Line, checked: list[tuple[Any, str]]) -> None:
    kept = line.root / ".work" / "params.before.yaml"
    said: list[str] = []
    apply_overlay(line.root, None, {"first.value": "uno"}, said.append)
    assert not kept.exists()
    mine = (line.root / "params.yaml").read_text()
    apply_overlay(line.root, None, {"first.value": "eins"}, said.append)
    assert kept.read_text() == mine
    assert any("params.before.yaml" in text for text in said)


def test_without_git_what_was_there_is_kept(
    line: Line, checked: list[tuple[Any, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    before = (line.root / "params.yaml").read_text()
    monkeypatch.setenv("PATH", str(line.root / "nothing"))
    assert apply_overlay(line.root, None, {"first.value": "uno"}, print)
    assert (line.root / ".work" / "params.before.yaml").read_text() == before
    assert "uno" in (line.root / "params.yaml").read_text()


def test_unknown_presets_name_their_neighbour(tmp_path: Path, preset: str) -> None:
    (tmp_path / "params.yaml").write_text(PARAMS)
    with pytest.raises(ParamsError, match="did you mean 'finite'"):
        apply_overlay(tmp_path, "finit", {}, print)


def test_presets_are_listed_with_their_first_line(preset: str) -> None:
    assert presets() == {"finite": "Finite scalar quantization; 3 minutes on a laptop."}


@pytest.mark.parametrize(
    ("preset", "message"),
    [
        ("bottleneck: !!python/object/apply:os.system [id]", "not valid YAML"),
        ("bottleneck: &a [*a]", "nested at most"),
        ("bottleneck:\n  kind: fsq\nbottleneck:\n  kind: vq\n", "not valid YAML"),
        ("{bottleneck: {kind: fsq}, training: {rate: 1}}", "one section after another"),
        ("? [bottleneck]\n: {kind: fsq}\n", "one section after another"),
        ("- bottleneck", "must hold sections"),
        ("training: &t {rate: 1}\nbottleneck: *t\n", "not valid YAML"),
    ],
)
def test_tricks_of_yaml_in_a_preset_are_refused(preset: str, message: str) -> None:
    with pytest.raises(ParamsError, match=message):
        overlaid(PARAMS, preset, {})


@pytest.mark.parametrize("name", ["../../../etc/passwd", "/etc/passwd", "digits_kl/../digits_kl"])
def test_a_preset_is_named_and_no_path(name: str) -> None:
    with pytest.raises(ParamsError, match="no such file"):
        preset_path(name)


def test_a_value_from_the_command_line_makes_no_object() -> None:
    with pytest.raises(ParamsError, match="not valid YAML"):
        parse_override("seed=!!python/object/apply:os.system [id]")


def test_what_dvc_is_to_watch_is_there(tmp_path: Path, project: Path) -> None:
    text = (project / "params.yaml").read_text(encoding="utf-8")
    (tmp_path / "params.yaml").write_text(text, encoding="utf-8")
    with pytest.raises(ParamsError, match="dataset.watch: must be .* got gone"):
        apply_overlay(tmp_path, None, {"dataset.watch": "gone"}, print)
    assert (tmp_path / "params.yaml").read_text(encoding="utf-8") == text
    (tmp_path / "there").mkdir()
    assert apply_overlay(tmp_path, None, {"dataset.watch": "there"}, print)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"seed: \xe9\n", "must be UTF-8 text"), (b"{}\n", "must hold sections")],
)
def test_a_file_that_holds_no_parameters_is_told(
    tmp_path: Path, content: bytes, message: str
) -> None:
    (tmp_path / "params.yaml").write_bytes(content)
    with pytest.raises(ParamsError, match=message):
        apply_overlay(tmp_path, "digits_kl", {}, print)
    assert (tmp_path / "params.yaml").read_bytes() == content
