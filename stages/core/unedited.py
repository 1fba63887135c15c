"""What a stage began with, and whether it was edited while the stage ran.

DVC notes parameters, code and inputs as they are when a stage *ends*. So a stage whose own sections
of params.yaml, code or inputs were edited meanwhile ends with 75 and is not recorded: DVC would
take its outputs for those of what nobody ran.
"""

import hashlib
import sys
from collections.abc import Mapping
from pathlib import Path

from stages.core.artifacts import Artifact, open_artifact
from stages.core.errors import Interrupted
from stages.core.sections import PARAMS_PATH, Section, parse_params, read_yaml

__all__ = ["code_files", "digest_of", "require_unedited"]


def code_files() -> dict[Path, bytes]:
    """Our modules loaded so far, the program and the members it was given: file -> sha256."""
    root = Path(__file__).resolve().parents[1]
    files = {
        Path(file)
        for module in list(sys.modules.values())
        if (file := getattr(module, "__file__", None)) and Path(file).is_relative_to(root)
    }
    return {file: hashlib.sha256(file.read_bytes()).digest() for file in sorted(files)}


def digest_of(code: Mapping[Path, bytes]) -> str:
    """One digest of all of them."""
    return hashlib.sha256(b"".join(code.values())).hexdigest()


def require_unedited(
    stage: str,
    params_type: type[Section],
    params: Section,
    inputs: Mapping[str, Artifact],
    code: Mapping[Path, bytes],
) -> None:
    """Refuse to have ended where DVC would note other parameters, code or inputs than were used.

    Raises:
        Interrupted: Naming what was edited; the work that was done is kept.
    """
    edited = [str(file) for file, digest in code.items() if _sha256(file) != digest]
    edited += [
        str(artifact.path)
        for artifact in inputs.values()
        if open_artifact(artifact.path, artifact.type).digest != artifact.digest
    ]
    now = parse_params(params_type, read_yaml(PARAMS_PATH), source=str(PARAMS_PATH), strict=False)
    before, after = params.model_dump(mode="json"), now.model_dump(mode="json")
    edited += [f"{PARAMS_PATH}: {name}" for name in before if before[name] != after.get(name)]
    if edited:
        raise Interrupted(
            f"{stage}: edited while it ran: {', '.join(edited)}; its outputs are those of what was "
            "there before and are not recorded: run again"
        )


def _sha256(file: Path) -> bytes | None:
    try:
        return hashlib.sha256(file.read_bytes()).digest()
    except OSError:
        return None
