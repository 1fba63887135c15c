"""params.yaml for this run: whole sections from a preset, then single values.

A preset is a file `pipelines/presets/NAME.yaml` that names whole top-level sections:

    params <- {**params, **preset};   then `section.key = value` for each override

As `dvc exp run -S` does in the workspace, the result is written into params.yaml: DVC, a stage run
by hand and a person all see the same numbers. Sections are copied as text, so the comments of
both files live on, and nothing is written that `stages.params` does not accept.
"""

import copy
import difflib
import importlib
import io
import json
import shutil
import subprocess
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.comments import CommentedMap

from pipelines.settings.named_files import named_file
from stages.core.errors import ParamsError
from stages.core.sections import load_yaml, read_yaml_text

__all__ = [
    "apply_overlay",
    "as_preset",
    "checked_overlay",
    "checked_values",
    "overlaid",
    "parse_override",
    "preset_path",
    "presets",
    "read_params",
]

PARAMS = "params.yaml"
KEPT = ".work/params.before.yaml"
PRESETS = Path(__file__).parents[1] / "presets"
ONE_AFTER_ANOTHER = (
    f"{PARAMS} and presets must hold one section after another, each beginning with "
    "`name:` at the start of a line, without anchors shared between sections"
)


def presets() -> dict[str, str]:
    """Names of the presets, each with the first line of its opening comment."""
    found = {}
    for path in sorted(PRESETS.glob("*.yaml")):
        first = next(iter(path.read_text(encoding="utf-8").splitlines()), "")
        found[path.stem] = first.lstrip("# ") if first.startswith("#") else ""
    return found


def preset_path(name: str) -> Path:
    """File of a preset.

    Raises:
        ParamsError: If there is none of that name.
    """
    return named_file(PRESETS, name, "preset")


def parse_override(text: str) -> tuple[str, Any]:
    """Read `section.key=value`; the value is YAML 1.2, so that 1e-4 is a number and [1, 2] a list.

    Raises:
        ParamsError: If there is no `=`, no key, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise ParamsError(f"--set must be section.key=value; got {text!r}")
    return key.strip(), _loaded(value, "safe", source=f"--set {key}")


def as_preset(sections: Mapping[str, Any]) -> str | None:
    """Whole sections as the text of a preset; None if there are none."""
    # JSON is YAML, and takes one line per section.
    return "".join(f"{name}: {json.dumps(value)}\n" for name, value in sections.items()) or None


def overlaid(params: str, preset: str | None, overrides: Mapping[str, Any]) -> str:
    """The text of params.yaml with a preset's sections in place and values overridden.

    Args:
        params: Text of params.yaml.
        preset: Text of the preset; None changes no section.
        overrides: Dotted path of an existing value -> new value.

    Raises:
        ParamsError: If a text is no YAML mapping or a path does not exist.
    """
    text = params if preset is None else _with_sections(params, preset)
    if not overrides:
        return text
    yaml = _round_trip()
    document = load_yaml(text, PARAMS, yaml)
    for path, value in overrides.items():
        _assign(document, path, value)
    written = io.StringIO()
    yaml.dump(document, written)
    return written.getvalue()


def read_params(text: str) -> dict[str, Any]:
    """Content of a text of params.yaml.

    Raises:
        ParamsError: If it is no YAML mapping.
    """
    content = _loaded(text, "safe", PARAMS)
    if not isinstance(content, dict):
        raise ParamsError(f"{PARAMS}: must hold sections (a mapping)")
    return content


def checked_values(content: Mapping[str, Any], overrides: Mapping[str, Any]) -> dict[str, Any]:
    """What `overlaid` would hold, if the stages accept it; without its text, which takes longer.

    Args:
        content: Of params.yaml.
        overrides: As for `overlaid`.

    Raises:
        ParamsError: If a path does not exist or the result is not valid.
    """
    changed = copy.deepcopy(dict(content))
    for path, value in overrides.items():
        _assign(changed, path, value)
    _check(changed, PARAMS)
    return changed


def checked_overlay(params: str, preset: str | None, overrides: Mapping[str, Any]) -> str:
    """The same with a preset by name, and only if the stages accept the result.

    Args:
        params: Text of params.yaml.
        preset: Name of a preset.
        overrides: As for `overlaid`.

    Raises:
        ParamsError: If the preset or a path does not exist or the result is not valid.
    """
    section_text = preset_path(preset).read_text(encoding="utf-8") if preset else None
    after = overlaid(params, section_text, overrides)
    _check(_loaded(after, "safe", PARAMS), _source(preset))
    return after


def _check(content: dict[str, Any], source: str) -> None:
    # By name: the check knows every family, and only a run with an overlay needs it.
    importlib.import_module("stages.params").check(content, source=source)


def _source(preset: str | None) -> str:
    return f"{PARAMS} + preset {preset}" if preset else PARAMS


def apply_overlay(
    workspace: Path, preset: str | None, overrides: Mapping[str, Any], log: Callable[[str], None]
) -> bool:
    """Write the overlaid params.yaml of a workspace, whole or not at all.

    A params.yaml with changes that git does not have is kept in `.work/params.before.yaml`.

    Args:
        workspace: Folder of params.yaml.
        preset: Name of a preset.
        overrides: As for `overlaid`.
        log: Told what was done.

    Returns:
        Whether params.yaml changed.

    Raises:
        ParamsError: If the preset or a path does not exist or the result is not valid.
    """
    path = workspace / PARAMS
    before = read_yaml_text(path)
    after = checked_overlay(before, preset, overrides)
    _require_watched(workspace, overrides)
    source = _source(preset)
    if after == before:
        return False
    if _has_uncommitted_changes(workspace):
        kept = workspace / KEPT
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, kept)
        log(f"{PARAMS} had changes that git does not have; the file as it was is {KEPT}")
    building = path.with_name(f".{PARAMS}.building")
    building.write_text(after, encoding="utf-8")
    shutil.copymode(path, building)
    building.replace(path)
    log(f"{PARAMS} written: {' + '.join([source, *overrides])}")
    return True


def _require_watched(workspace: Path, overrides: Mapping[str, Any]) -> None:
    watched = overrides.get("dataset.watch")
    if watched is not None and not (workspace / str(watched)).exists():
        raise ParamsError(
            f"dataset.watch: must be a file or folder that is there, for DVC looks at it; got "
            f"{watched}"
        )


def _has_uncommitted_changes(workspace: Path) -> bool:
    """Also true where git is missing or does not know the file: what cannot be got back is kept."""
    questions = (["diff", "--quiet", "HEAD"], ["ls-files", "--error-unmatch"])
    try:
        answers = [
            subprocess.run(["git", *question, "--", PARAMS], cwd=workspace, capture_output=True)
            for question in questions
        ]
    except FileNotFoundError:
        return True
    return any(answer.returncode != 0 for answer in answers)


def _round_trip() -> YAML:
    yaml = YAML()
    yaml.preserve_quotes = True
    yaml.width = 4096  # a long line stays one line
    return yaml


def _loaded(text: str, kind: str, source: str) -> Any:
    return load_yaml(text, source, _round_trip() if kind == "rt" else None)


def _with_sections(params: str, preset: str) -> str:
    """Replace the text of each section that the preset names, append those that are new."""
    names, sections, head = _split(params, PARAMS)
    preset_names, preset_sections, _ = _split(preset, "preset")
    for name in preset_names:
        # A section's own heading comment stays: the preset's comments speak about the preset.
        heading = _heading(sections[name]) if name in sections else "\n"
        body = preset_sections[name]
        sections[name] = heading + body[len(_heading(body)) :]
    order = names + [name for name in preset_names if name not in names]
    text = head + "".join(sections[name] for name in order)
    wanted = {**_loaded(params, "safe", PARAMS), **_loaded(preset, "safe", "preset")}
    if _loaded(text, "safe", PARAMS) != wanted:
        raise ParamsError(ONE_AFTER_ANOTHER)
    return text


def _split(text: str, source: str) -> tuple[list[str], dict[str, str], str]:
    """Names in order, text of each section with its heading comment, and what stands before."""
    document = _loaded(text, "rt", source)
    if not isinstance(document, CommentedMap) or not document:
        raise ParamsError(f"{source}: must hold sections (a mapping)")
    lines = [line + "\n" for line in text.splitlines()]
    starts = []
    for name in document:
        start = document.lc.key(name)[0] if isinstance(name, str) else 0
        if not lines[start].startswith(f"{name}:"):
            raise ParamsError(f"{source}: {ONE_AFTER_ANOTHER}")
        if starts:
            while start > 0 and (lines[start - 1].startswith("#") or not lines[start - 1].strip()):
                start -= 1
        starts.append(start)
    ends = [*starts[1:], len(lines)]
    names = [str(name) for name in document]
    sections = {
        name: "".join(lines[start:end])
        for name, start, end in zip(names, starts, ends, strict=True)
    }
    return names, sections, "".join(lines[: starts[0]])


def _heading(section: str) -> str:
    lines = section.splitlines(keepends=True)
    count = next(i for i, line in enumerate(lines) if line.strip() and not line.startswith("#"))
    return "".join(lines[:count])


def _assign(document: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    place: Any = document
    for part in parents:
        place = place.get(part) if isinstance(place, dict) else None
    if not isinstance(place, dict) or last not in place:
        near = difflib.get_close_matches(path, _paths(document), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        raise ParamsError(f"{path} is not in {PARAMS}{hint}")
    place[last] = value


def _paths(value: Any, prefix: str = "") -> list[str]:
    found = []
    for key, inner in value.items():
        found.append(f"{prefix}{key}")
        if isinstance(inner, dict):
            found += _paths(inner, f"{prefix}{key}.")
    return found
