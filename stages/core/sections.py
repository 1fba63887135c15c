"""Typed, frozen, strict sections of params.yaml.

A section is a pydantic model beside the part it configures. A *member* section (`bottleneck`,
`prior`, ...) carries a `kind`, which is the file name of the member that reads it: `kind: ema_vq`
is read by the `Options` of `stages/bottlenecks/ema_vq.py`. There are no default values: every
number of a run stands in params.yaml.

YAML is read by ruamel (YAML 1.2, as DVC does): PyYAML would read `1e-4` as a string. It is read as
plain values only: no tag makes an object, and a file whose aliases stand for more than fits in
memory, or that is nested without end, is refused.
"""

import difflib
import importlib
import json
from pathlib import Path
from typing import Any, TypeVar, cast

from pydantic import BaseModel, ConfigDict, ValidationError, create_model
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from stages.core.errors import ParamsError

__all__ = [
    "PARAMS_PATH",
    "MemberOptions",
    "Section",
    "load_member",
    "load_yaml",
    "parse_params",
    "read_yaml",
    "read_yaml_text",
    "validate",
]

PARAMS_PATH = Path("params.yaml")
MOST_CHARACTERS = 2**22
MOST_VALUES, MOST_LEVELS = 100_000, 50

FORGOTTEN = {"size", "nfiles"}
"""What DVC leaves out of the key of its run cache, at any depth: they are also what it notes of
files (`dvc.stage.cache`)."""

M = TypeVar("M")
S = TypeVar("S", bound="Section")


class Section(BaseModel):
    """One section of params.yaml: frozen, no unknown keys, no silent conversion, no defaults."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @classmethod
    def __pydantic_init_subclass__(cls, **kwargs: Any) -> None:
        """Refuse names by which DVC would take the results of another value for those of this."""
        forgotten = FORGOTTEN & cls.model_fields.keys()
        assert not forgotten, f"{cls.__name__}: DVC's run cache leaves out {forgotten}: rename it"


class MemberOptions(Section):
    """Base of every family's options.

    A family's `base.py` derives one abstract options class from this; each member file derives
    one final class from that. `kind` is the member's file name.
    """

    kind: str

    @classmethod
    def package(cls) -> str:
        """Dotted name of the family's package, e.g. `stages.bottlenecks`."""
        return cls.__module__.rpartition(".")[0]

    @classmethod
    def of_kind(cls: type[S], kind: str) -> type[S]:
        """The options class of member `kind` of this family."""
        return _only_subclass(cls, cls.package(), kind)


def load_member(base: type[M], kind: str) -> type[M]:
    """The class of member `kind` in the family whose abstract class is `base`.

    Args:
        base: The abstract class of the family, defined in the family's `base.py`.
        kind: File name of the member, as in params.yaml.

    Raises:
        ParamsError: If the family has no file of that name.
    """
    return _only_subclass(base, base.__module__.rpartition(".")[0], kind)


def _only_subclass(base: type[M], package: str, kind: str) -> type[M]:
    if not kind.isidentifier() or kind in ("base", "__init__"):
        raise ParamsError(_unknown_kind(package, kind))
    try:
        module = importlib.import_module(f"{package}.{kind}")
    except ModuleNotFoundError as error:
        if error.name != f"{package}.{kind}":
            raise
        raise ParamsError(_unknown_kind(package, kind)) from None
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type)
        and issubclass(value, base)
        and value.__module__ == module.__name__
    ]
    assert len(found) == 1, f"{module.__name__} must define exactly one {base.__name__}: {found}"
    return cast(type[M], found[0])


def _unknown_kind(package: str, kind: str) -> str:
    folder = Path(importlib.import_module(package).__path__[0])
    kinds = sorted(p.stem for p in folder.glob("*.py") if p.stem not in ("__init__", "base"))
    family = package.rpartition(".")[2]
    return f"kind: {kind!r} is not one of the {family}; choose from {', '.join(kinds)}"


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML 1.2 mapping into plain Python values.

    Raises:
        ParamsError: If the file is missing, is not YAML, or does not hold a mapping.
    """
    value = load_yaml(read_yaml_text(path), str(path))
    if not isinstance(value, dict):
        raise ParamsError(f"{path}: must hold sections (a mapping); got {type(value).__name__}")
    return value


def read_yaml_text(path: Path) -> str:
    """The text of a YAML file, without the mark some editors put first.

    Raises:
        ParamsError: If the file is missing or is not text.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run from the root of the project") from None
    except IsADirectoryError:
        raise ParamsError(f"{path}: must be a file, is a folder") from None
    except UnicodeDecodeError as error:
        raise ParamsError(f"{path}: must be UTF-8 text: {error}") from None


def load_yaml(text: str, source: str, yaml: YAML | None = None) -> Any:
    """Read YAML from anywhere into plain Python values.

    Args:
        text: The YAML.
        source: What to call it in messages.
        yaml: How to read it, where that is not into plain values.

    Raises:
        ParamsError: If it is not YAML, or holds objects or more than a computer should be asked to.
    """
    if len(text) > MOST_CHARACTERS:
        raise ParamsError(
            f"{source}: must have at most {MOST_CHARACTERS} characters, has {len(text)}"
        )
    try:
        value = (yaml or YAML(typ="safe", pure=True)).load(text)
        _require_bounded(value)
    except YAMLError as error:
        raise ParamsError(f"{source}: not valid YAML: {error}") from None
    except RecursionError:
        raise ParamsError(f"{source}: must be nested at most {MOST_LEVELS} levels deep") from None
    # Numbers of a million digits, days that no month has.
    except (ValueError, OverflowError) as error:
        raise ParamsError(f"{source}: holds a value that cannot be read: {error}") from None
    return value


def _require_bounded(value: Any) -> None:
    """Refuse what is small as text and endless once every alias is what it stands for."""
    count = 0
    waiting = [(value, 0)]
    while waiting:
        each, level = waiting.pop()
        count += 1
        if level > MOST_LEVELS:
            raise RecursionError
        if count > MOST_VALUES:
            raise ValueError(f"its aliases stand for more than {MOST_VALUES} values")
        inner = each.values() if isinstance(each, dict) else each
        if isinstance(each, dict | list | tuple | set):
            waiting += [(part, level + 1) for part in inner]


def parse_params(model: type[S], raw: dict[str, Any], *, source: str, strict: bool) -> S:
    """Validate the sections that `model` names.

    Args:
        model: A section whose fields are the sections wanted; a field typed with a family's
            abstract options is read by the member its `kind` names.
        raw: All of params.yaml.
        source: What to call the file in messages.
        strict: Whether a section that `model` does not name is an error.

    Raises:
        ParamsError: Naming every offending field, what must hold and what came.
    """
    members: dict[str, Any] = {}
    for name, field in model.model_fields.items():
        family = field.annotation
        if isinstance(family, type) and issubclass(family, MemberOptions) and name in raw:
            members[name] = (_member_options(family, name, raw[name], source), ...)
    resolved = create_model(model.__name__, __base__=model, **members) if members else model
    known = raw if strict else {k: v for k, v in raw.items() if k in model.model_fields}
    return validate(resolved, known, source=source)


def _member_options(
    family: type[MemberOptions], name: str, value: Any, source: str
) -> type[MemberOptions]:
    kind = value.get("kind") if isinstance(value, dict) else None
    if not isinstance(kind, str):
        raise ParamsError(f"{source}: {name}.kind must name a member; got {kind!r} in {value!r}")
    try:
        return family.of_kind(kind)
    except ParamsError as error:
        raise ParamsError(f"{source}: {name}.{error}") from None


def validate(model: type[S], value: Any, *, source: str) -> S:
    """Validate `value` against `model`, turning pydantic's report into our one message.

    Raises:
        ParamsError: As for `parse_params`.
    """
    try:
        # Through JSON: strict there still reads a list as a tuple, and 1 as 1.0.
        return model.model_validate_json(json.dumps(value))
    except ValidationError as error:
        lines = [_explain(model, item) for item in error.errors()]
        raise ParamsError("\n".join(f"{source}: {line}" for line in lines)) from None
    except (TypeError, ValueError) as error:
        raise ParamsError(f"{source}: only numbers, words and lists may stand here: {error}") from (
            None
        )


def _explain(model: type[BaseModel], item: Any) -> str:
    where = ".".join(str(part) for part in item["loc"]) or "(all)"
    if item["type"] == "extra_forbidden":
        near = difflib.get_close_matches(str(item["loc"][-1]), _keys(model, item["loc"][:-1]), 1)
        hint = f"; did you mean {near[0]!r}?" if near else ""
        return f"{where} is not a known parameter{hint}"
    if item["type"] == "missing":
        return f"{where} is missing; every parameter of its section must be given"
    message = item["msg"].removeprefix("Value error, ")
    # A rule over a whole section says itself what came.
    came = (
        "" if isinstance(item["input"], dict) and item["type"] == "value_error" else item["input"]
    )
    return f"{where}: {message}" + (f"; got {came!r}" if came != "" else "")


def _keys(model: type[BaseModel], path: tuple[Any, ...]) -> list[str]:
    current: Any = model
    for part in path:
        field = getattr(current, "model_fields", {}).get(part)
        current = field.annotation if field is not None else None
    return list(getattr(current, "model_fields", {}))
