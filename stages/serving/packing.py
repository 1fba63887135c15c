"""A folder that MLflow serves: `mlflow models serve -m FOLDER`, `mlflow.pyfunc.load_model(FOLDER)`.

It holds weights as safetensors, the line's `sampling` section, the code of `stages` that reads
them, and the versions of the libraries that code needs: it goes on drawing the same pictures when
the project has moved on. No file of it is a pickle.
"""

import logging
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import pandas as pd

import stages
import stages.core.quiet
from stages.core.errors import ParamsError
from stages.sampling.options import SamplingOptions

__all__ = ["LIBRARIES", "pack"]

LIBRARIES = (
    "torch",
    "numpy",
    "scipy",
    "pandas",
    "pillow",
    "safetensors",
    "pydantic",
    "ruamel.yaml",
    "jaxtyping",
    "mlflow",
)
"""What the code imports to draw; a test compares."""
SETTINGS = ("top_k", "top_p", "min_p", "guidance", "variance_temperature")
"""Settings of the sampler that whoever asks may choose."""
_CODE = Path(__file__).with_name("pyfunc_model.py")


def pack(folder: Path, parts: Mapping[str, Path], sampling: SamplingOptions) -> None:
    """Write the folder; it appears whole or not at all.

    Args:
        folder: Where to; must not be there yet.
        parts: The trained parts, by type (`stages.sampling.trained.needed_paths`).
        sampling: What requests do not say.

    Raises:
        ParamsError: If the folder is there.
        ArtifactError: If the parts are damaged or do not belong together.
    """
    if folder.exists():
        raise ParamsError(f"{folder}: must not be there yet; remove it or name another folder")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    # MLflow tells of things that nobody here can change.
    for name in ("mlflow", "mlflow.pyfunc"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from mlflow.models import ModelSignature
    from mlflow.pyfunc import save_model
    from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema

    inputs = Schema(
        [
            # As text also where it is a number: MLflow cannot read CSV where any type will do.
            ColSpec(DataType.string, "class", required=False),
            ColSpec(DataType.long, "seed", required=False),
            ColSpec(DataType.double, "temperature", required=False),
            ColSpec(DataType.long, "index", required=False),
        ]
    )
    outputs = Schema(
        [
            ColSpec(DataType.string, "class", required=False),
            ColSpec(DataType.long, "seed"),
            ColSpec(DataType.long, "index"),
            ColSpec(DataType.double, "temperature"),
            ColSpec(DataType.binary, "png"),
        ]
    )
    section = sampling.model_dump(mode="json")
    example = pd.DataFrame({"seed": [0, 0], "index": [0, 1], "temperature": [1.0, 0.8]})
    types = {name: DataType.long if name == "top_k" else DataType.double for name in SETTINGS}
    params = ParamSchema([ParamSpec(name, types[name], section[name]) for name in SETTINGS])
    with _appearing(folder) as building:
        save_model(
            str(building),
            python_model=str(_CODE),
            artifacts={name: str(_copied(path, building)) for name, path in parts.items()},
            code_paths=[str(_code_of_stages(building))],
            signature=ModelSignature(inputs=inputs, outputs=outputs, params=params),
            input_example=example,
            model_config={"sampling": section, "device": "auto"},
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in LIBRARIES],
        )


@contextmanager
def _appearing(folder: Path) -> Iterator[Path]:
    work = folder.with_name(f".{folder.name}.building")
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work / "model"
        (work / "model").replace(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _copied(part: Path, building: Path) -> Path:
    """A copy without links: DVC may keep the files elsewhere, and MLflow takes none from there."""
    copy = building.with_name("parts") / part.name
    # The contents alone: what DVC keeps may only be read, what is packed belongs to the user.
    shutil.copytree(part, copy, copy_function=shutil.copyfile)
    return copy


def _code_of_stages(building: Path) -> Path:
    """A copy of the package without what Python has compiled."""
    source = Path(stages.__file__).parent
    copy = building.with_name("code") / source.name
    shutil.copytree(source, copy, ignore=shutil.ignore_patterns("__pycache__"))
    return copy
