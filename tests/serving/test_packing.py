"""A packed model is whole, holds no pickle, and draws what the line draws."""

import ast
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from stages.core.errors import ParamsError
from stages.pack_model import main
from stages.serving.packing import LIBRARIES, pack
from stages.serving.requested import ImageServer, Wanted
from stages.serving.tables import png_of
from tests.architecture.imports import PROJECT, closure
from tests.serving.lines import opened, options

PLAIN = {"", ".py", ".cpp", ".h", ".json", ".yaml", ".txt", ".csv", ".png", ".html", ".safetensors"}


@pytest.fixture(scope="module")
def packed(codes_line: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed") / "model"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(codes_line)
        assert main(["--out", str(folder)]) == 0
    return folder


def test_it_holds_no_pickle_and_nothing_compiled(packed: Path) -> None:
    files = [path for path in packed.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= PLAIN
    for path in files:
        # What pickle.dump and torch.save begin with.
        assert path.read_bytes()[:2] not in {b"\x80\x04", b"\x80\x05", b"PK"}, path
    assert (packed / "code/stages/serving/pyfunc_model.py").is_file()
    assert [path.name for path in packed.parent.iterdir()] == ["model"]


def test_it_draws_the_line_s_images_as_mlflow_users_ask(packed: Path, codes_line: Path) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.pyfunc import load_model

    model = load_model(str(packed), model_config={"device": "cpu"})
    answer = model.predict(pd.DataFrame({"class": ["1", "bag"], "seed": [5, 5], "index": [1, 4]}))
    line = opened(codes_line)
    stage = np.load(codes_line / "data/samples/images.npy")
    assert answer["png"].tolist() == [png_of(stage[1]), png_of(stage[4])]
    other = model.predict(pd.DataFrame({"class": ["bag"], "seed": [5]}), params={"top_k": 1})
    first = ImageServer(line.trained, options(top_k=1)).images([Wanted(1, 5, 0, 1.0)])
    assert other["png"].tolist() == [png_of(first[0])]
    with pytest.raises(MlflowException, match="top_p: Input should be less than or equal to 1"):
        model.predict(pd.DataFrame({"seed": [1]}), params={"top_p": 3.0})
    with pytest.raises(MlflowException, match="row 0: class 'shoe' is not one of sneaker"):
        model.predict(pd.DataFrame({"class": ["shoe"]}))


def test_parts_that_are_links_are_packed_as_files(codes_line: Path, tmp_path: Path) -> None:
    # As DVC leaves them with `cache.type symlink`: read-only files elsewhere.
    (tmp_path / "cache").mkdir()
    for part in ("prior", "autoencoder"):
        (tmp_path / "data" / part).mkdir(parents=True)
        for path in (codes_line / "data" / part).iterdir():
            kept = tmp_path / "cache" / f"{part}-{path.name}"
            shutil.copyfile(path, kept)
            kept.chmod(0o444)
            (tmp_path / "data" / part / path.name).symlink_to(kept)
    place = ["--data", str(tmp_path / "data"), "--params", str(codes_line / "params.yaml")]
    assert main([*place, "--out", str(tmp_path / "model")]) == 0
    for part in ("prior", "autoencoder"):
        for path in (codes_line / "data" / part).iterdir():
            packed = tmp_path / "model/artifacts" / part / path.name
            assert not packed.is_symlink() and packed.stat().st_mode & stat.S_IWUSR
            assert packed.read_bytes() == path.read_bytes()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@pytest.mark.slow
def test_it_needs_nothing_of_the_project(packed: Path, tmp_path: Path) -> None:
    code = (
        "import mlflow, pandas\n"
        f"model = mlflow.pyfunc.load_model({str(packed)!r})\n"
        "print(len(model.predict(pandas.DataFrame({'seed': [1, 2]}))))\n"
        "import stages\n"
        "print(stages.__file__)\n"
    )
    environment = {**os.environ, "PYTHONPATH": ""}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["2", str(packed / "code/stages/__init__.py")]


def test_mistakes_leave_nothing(codes_line: Path, tmp_path: Path, capsys) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(codes_line)
        (tmp_path / "there").mkdir()
        for options_, message in (
            (["--out", str(tmp_path / "there")], "must not be there yet"),
            (["--out", str(tmp_path / "a"), "--data", "nowhere"], "must be here"),
            (["--out", str(tmp_path / "a"), "--params", "no.yaml"], "no.yaml"),
        ):
            assert main(options_) == 1
            said = capsys.readouterr().err
            assert message in said and "Traceback" not in said
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
    with pytest.raises(ParamsError, match="must not be there yet"):
        pack(tmp_path / "there", {}, options())


def test_the_libraries_are_those_that_the_code_imports() -> None:
    members = [
        path
        for family in ("autoencoders", "backbones", "bottlenecks", "likelihoods", "objectives")
        for path in (PROJECT / "stages" / family).glob("*.py")
    ]
    members += [*(PROJECT / "stages/priors").glob("*.py"), *(PROJECT / "stages/heads").glob("*.py")]
    names: set[str] = set()
    for path in closure(PROJECT / "stages/serving/pyfunc_model.py", *members):
        # Imports within functions are made by programs that a model does not run.
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.Import):
                names |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                names.add(str(node.module).split(".")[0])
    # Triton comes with the builds of PyTorch that can use it.
    others = names - set(sys.stdlib_module_names) - {"stages", "triton"}
    distributions = {"PIL": "pillow", "ruamel": "ruamel.yaml"}
    assert {distributions.get(name, name) for name in others} == set(LIBRARIES)
