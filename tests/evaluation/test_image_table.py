"""Likelihood per image: the figures of `evaluate`, one by one, and in order."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import tests.evaluation.tiny_line as tiny
from stages.core.shapes import ImageShape
from stages.evaluate import INPUTS, evaluate
from stages.image_likelihoods import main
from tests.evaluation.test_evaluate import params
from tests.evaluation.tiny_line import CODES, CONTINUOUS, COUNTS, POINTS, make_line, run_of

NAMES = ["zero", "one", "two & more"]


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    made = {}
    with pytest.MonkeyPatch.context() as patch:
        # Folders are read as squares.
        patch.setattr(tiny, "IMAGE", ImageShape(1, 8, 8))
        for name, system, classes in (
            ("codes", CODES, NAMES),
            ("continuous", CONTINUOUS, None),
            ("points", POINTS, None),
        ):
            made[name] = tmp_path_factory.mktemp(name)
            patch.chdir(made[name])
            make_line(made[name], system, classes)
    return made


@pytest.fixture
def line(request: Any, lines: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(lines[request.param])
    return lines[request.param]


every = pytest.mark.parametrize("line", ["codes", "continuous", "points"], indirect=True)
codes = pytest.mark.parametrize("line", ["codes"], indirect=True)


def judged(path: Path, images: str, *more: str) -> pd.DataFrame:
    assert main([images, str(path), "--device", "cpu", *more]) == 0
    return pd.read_parquet(path)


@every
def test_means_are_the_figures_of_evaluate(line: Path, tmp_path: Path) -> None:
    evaluate(params(), run_of("evaluate", line, *INPUTS))
    figures = json.loads((line / "data/metrics/figures.json").read_text())
    found = judged(tmp_path / "t.parquet", "test", "--seed", "3", "--batch-size", "5")
    assert len(found) == COUNTS["test"]
    names = {"prior_nats", "distortion_nats", "rate_nats"} & figures.keys()
    for name in names:
        assert found[name].mean() == pytest.approx(figures[name]["value"], rel=1e-5)
    parts = "rate_nats" if "rate_nats" in found else "prior_nats"
    total = found[parts] + found["distortion_nats"]
    assert np.allclose(found["total_nats"], total)
    assert ("bits_per_dim" in found) == ("total_bits_per_dim" in figures)
    if "bits_per_dim" in found:
        expected = figures["total_bits_per_dim"]["value"]
        assert found["bits_per_dim"].mean() == pytest.approx(expected, rel=1e-5)
        assert np.allclose(found["bits_per_dim"] * 64 * math.log(2), found["total_nats"])


@every
def test_the_least_likely_come_first_and_are_shown(line: Path, tmp_path: Path) -> None:
    found = judged(tmp_path / "t.parquet", "test", "--show", "7", "--batch-size", "4")
    assert (found["total_nats"].diff().dropna() <= 0).all()
    assert sorted(found["index"]) == list(range(COUNTS["test"]))
    assert Image.open(tmp_path / "t.png").size[0] > 7 * 64
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


@codes
def test_an_odd_image_in_a_folder_is_found(line: Path, tmp_path: Path) -> None:
    folder, usual = tmp_path / "images", np.load(line / "data/prepared/test/images.npy")
    for index in range(6):
        (folder / NAMES[index % 2]).mkdir(parents=True, exist_ok=True)
        Image.fromarray(usual[index, 0]).save(folder / NAMES[index % 2] / f"{index}.png")
    (folder / NAMES[0] / "broken.png").write_bytes(b"not an image")
    table = judged(tmp_path / "t.parquet", str(folder))
    assert set(table["class_name"]) == set(NAMES[:2]) and len(table) == 6
    assert set(table["label"]) == {0, 1}
    files = {
        Path(file).name: nats for file, nats in zip(table["file"], table["total_nats"], strict=True)
    }
    # The same image costs the same whether it comes from the split or from a file.
    split = judged(tmp_path / "s.parquet", "test").set_index("index")
    labels = np.load(line / "data/prepared/test/labels.npy")
    for index in range(6):
        if labels[index] == index % 2:
            assert files[f"{index}.png"] == pytest.approx(split["total_nats"][index], rel=1e-5)


@codes
def test_a_folder_of_other_classes_has_none(line: Path, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "images").mkdir()
    Image.new("RGB", (20, 30), "red").save(tmp_path / "images/red.png")
    table = judged(tmp_path / "t.parquet", str(tmp_path / "images"))
    assert "label" not in table and list(table["file"]) == ["red.png"]
    assert f": 1 images of {tmp_path / 'images'}\n" in capsys.readouterr().out
    judged(tmp_path / "t.parquet", "test")
    assert f": {COUNTS['test']} images of the test split of data" in capsys.readouterr().out


@codes
def test_mistakes_are_one_message(line: Path, tmp_path: Path, capsys: Any) -> None:
    table = str(tmp_path / "t.parquet")
    (tmp_path / "empty").mkdir()
    for images in ("nowhere", str(tmp_path / "empty")):
        assert main([images, table]) == 1
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "t.parquet").exists()
    for folder in ("", f"{tmp_path}/empty/"):
        assert main(["test", folder, "--device", "cpu"]) == 1
        assert "table: must be a file to write; got the folder" in capsys.readouterr().err
    assert main(["test", f"{tmp_path}/table.png", "--device", "cpu"]) == 1
    assert "table: must be no picture, which goes beside" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["empty"]
