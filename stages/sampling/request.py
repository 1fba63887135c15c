"""What a person asks for on the command line: the sampling section with some values replaced."""

import argparse
import difflib
import math
import re
from pathlib import Path
from typing import Any

from stages.core.devices import Device
from stages.core.errors import ArtifactError, ParamsError
from stages.core.sections import PARAMS_PATH, Section, parse_params, read_yaml
from stages.sampling.options import SamplingOptions
from stages.sampling.trained import PATHS

__all__ = [
    "Params",
    "add_settings",
    "label_of",
    "png_or_folder",
    "requested_params",
    "require_trained",
]

_SETTINGS: dict[str, tuple[type, str]] = {
    "seed": (int, "other numbers, other images"),
    "temperature": (float, "below 1: safer, less diverse"),
    "top_k": (int, "only the k most probable codes; 0: all"),
    "top_p": (float, "only the most probable codes up to this probability"),
    "min_p": (float, "only codes this times as probable as the best; 0: all"),
    "variance_temperature": (float, "spread of continuous latents"),
    "guidance": (float, "above 1: more typical of the class"),
    "guidance_schedule": (str, "constant, linear or cosine"),
}

_MOST_TRIES = 1000
"""A share so small that nobody waits for it is a slip of the hand."""
_NEARLY = 2.5e-3
"""Of a share: 0.333 and 0.167 stand for 1/3 and 1/6."""

_OTHER_PICTURES = {".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff"}


class Params(Section):
    """The sections of params.yaml that matter here."""

    device: Device
    sampling: SamplingOptions


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add one option for each setting of the sampler; what is not given is as in params.yaml."""
    for name, (type, meaning) in _SETTINGS.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type, metavar="N", help=meaning)
    parser.add_argument(
        "--rejection",
        type=float,
        metavar="SHARE",
        help="the judge keeps this share of all candidates: 0.25 the best of 4; 1: off",
    )


def requested_params(options: argparse.Namespace, **values: Any) -> Params:
    """params.yaml's sampling section with what was asked for.

    Args:
        options: With the attributes of `add_settings`.
        **values: Further values of the section, each from the option of its name.

    Raises:
        ParamsError: If a value may not be, or contradicts another; it names the option that gave
            the value.
    """
    raw = read_yaml(PARAMS_PATH)
    if not isinstance(raw.get("sampling"), dict):
        raise ParamsError(f"{PARAMS_PATH}: must hold a section `sampling`")
    given = {name: getattr(options, name) for name in _SETTINGS}
    asked = {name: value for name, value in given.items() if value is not None}
    if asked.get("guidance") == 1:
        asked |= {"guidance_schedule": "constant", "guidance_interval": [0.0, 1.0]}
    if asked.get("guidance_schedule") == "constant":
        asked["guidance_power"] = 1.0
    if options.rejection is not None:
        tries = _tries_that_keep(options.rejection)
        asked |= {"rejection_tries": tries, "rejection_threshold": 1.0}
    raw["sampling"] = raw["sampling"] | asked | values
    by_option = [name for name, value in given.items() if value is not None] + list(values)
    options_of = {name: f"--{name.replace('_', '-')}" for name in by_option}
    if options.rejection is not None:
        options_of["rejection_tries"] = "--rejection"
    try:
        return parse_params(Params, raw, source=str(PARAMS_PATH), strict=False)
    except ParamsError as error:
        lines = [_with_options(line, options_of) for line in str(error).splitlines()]
        raise ParamsError("\n".join(lines)) from None


def _with_options(line: str, options_of: dict[str, str]) -> str:
    """A message about the section that names the options its values came from, not the file.

    Args:
        line: As of `parse_params`.
        options_of: Field of the section -> option that gave its value.
    """
    for name, option in options_of.items():
        field = f"{PARAMS_PATH}: sampling.{name}: "
        if line.startswith(field):
            return f"{option}: {line.removeprefix(field)}"
    # A rule over several values, of which some are the file's.
    rule = f"{PARAMS_PATH}: sampling: "
    said = [option for name, option in options_of.items() if re.search(rf"\b{name}\b", line)]
    if line.startswith(rule) and said:
        return f"{', '.join(said)} with {PARAMS_PATH}: sampling: {line.removeprefix(rule)}"
    return line


def _tries_that_keep(share: float) -> int:
    """Of how many candidates the best one is this share.

    Raises:
        ParamsError: If it is that of no whole number, or of too many.
    """
    if not 1 / _MOST_TRIES <= share <= 1:
        raise ParamsError(
            f"--rejection: must be the share to keep, from {1 / _MOST_TRIES:g} (the best of "
            f"{_MOST_TRIES}) to 1; got {share}"
        )
    tries = round(1 / share)
    if abs(share * tries - 1) > _NEARLY:
        fewer = math.floor(1 / share)
        nearest = (f"{1 / count:.4g} (the best of {count})" for count in (fewer, fewer + 1))
        raise ParamsError(
            "--rejection: must be one of a whole number of candidates; nearest are "
            f"{' and '.join(nearest)}; got {share}"
        )
    return tries


def png_or_folder(out: str, *, folder: bool) -> Path:
    """The place that `--out` names.

    Args:
        out: As it was given.
        folder: Whether a folder will do.

    Raises:
        ParamsError: If it is neither: no name at all, a picture of another format, a file.
    """
    path = Path(out)
    png = path.suffix.lower() == ".png"
    # An empty name, as of a variable nobody has set, would be the project itself.
    other = not out.strip() or path.suffix.lower() in _OTHER_PICTURES or path.is_file()
    if not png and (other or not folder):
        single = ", or a folder for single ones" if folder else ""
        raise ParamsError(
            f"--out: pictures are written as PNG: must be a file called *.png{single}; got {out!r}"
        )
    return path


def label_of(name: str, class_names: list[str] | None, num_classes: int) -> int:
    """The class of that name or number.

    Raises:
        ParamsError: If there is none; with the nearest.
    """
    names = class_names or [str(label) for label in range(num_classes)]
    if not names:
        raise ParamsError(f"the prior that is here knows no classes; {name!r} was asked for")
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < len(names):
        return int(name)
    near = difflib.get_close_matches(name, names, 1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise ParamsError(
        f"class {name!r} is not one of {', '.join(names)}, nor a number from 0 to "
        f"{len(names) - 1}{hint}"
    )


def require_trained() -> None:
    """Say what to do where nothing is trained yet.

    Raises:
        ArtifactError: If there is no prior or no autoencoder.
    """
    missing = [str(PATHS[part]) for part in ("autoencoder", "prior") if not PATHS[part].exists()]
    if missing:
        raise ArtifactError(
            f"nothing is trained here yet: {' and '.join(missing)} must be there; train first "
            "(`python -m pipelines run`), from the root of the project"
        )
