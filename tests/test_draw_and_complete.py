"""The two programs for people, over a line in miniature."""

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

import stages.complete
import stages.draw
from tests.evaluation.tiny_line import CODES, IMAGE, SAMPLING, make_line

NAMES = ["sneaker", "bag", "two & more"]


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("line")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_line(folder, CODES, NAMES)
    params = {"device": "cpu", "sampling": SAMPLING}
    (folder / "params.yaml").write_text(json.dumps(params))
    return folder


@pytest.fixture(autouse=True)
def in_the_line(line: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(line)


def draw(*arguments: str) -> int:
    return stages.draw.main(arguments)


def complete(*arguments: str) -> int:
    return stages.complete.main(arguments)


def test_a_folder_holds_the_images_of_the_stage_and_says_which(tmp_path: Path) -> None:
    assert draw("--count", "5", "--out", str(tmp_path / "new")) == 0
    table = pd.read_parquet(tmp_path / "new/samples.parquet")
    assert table["class_name"].tolist() == [NAMES[i % 3] for i in range(5)]
    assert table["file"][2] == "000002-two_more.png" and set(table["seed"]) == {5}
    stage = np.load("data/samples/images.npy")
    for index, name in enumerate(table["file"]):
        with Image.open(tmp_path / "new" / name) as image:
            np.testing.assert_array_equal(np.asarray(image), stage[index, 0])


def test_a_draw_replaces_the_one_that_was_there_and_nothing_else(tmp_path: Path) -> None:
    out = tmp_path / "new"
    assert draw("--count", "5", "--out", str(out)) == 0
    table = pd.read_parquet(out / "samples.parquet")
    # What a table names elsewhere, or is no picture of a draw, is not its to remove.
    for name in ("../000009.png", "mine.png"):
        (out / name).write_bytes(b"mine")
    named = [*table["file"], "../000009.png", "mine.png", str(tmp_path / "000009.png")]
    pd.DataFrame({"file": named}).to_parquet(out / "samples.parquet")
    (out / "000001-kept.png").write_bytes(b"mine")
    assert draw("--count", "2", "--classes", "bag", "--out", str(out)) == 0
    table = pd.read_parquet(out / "samples.parquet")
    kept = ["000001-kept.png", "mine.png", "samples.parquet"]
    assert table["file"].tolist() == ["000000-bag.png", "000001-bag.png"]
    assert sorted(path.name for path in out.iterdir()) == sorted([*table["file"], *kept])
    assert (tmp_path / "000009.png").exists()


def test_a_draw_that_fails_leaves_the_one_that_was_there(tmp_path: Path, monkeypatch) -> None:
    out = tmp_path / "new"
    assert draw("--count", "5", "--out", str(out)) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    # After its images, and before its table.
    monkeypatch.setattr(pd.DataFrame, "to_parquet", lambda *_, **__: interrupted())
    assert draw("--count", "2", "--classes", "bag", "--out", str(out)) != 0
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before


def interrupted() -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("kind", ["garbage", "the stage's"])
def test_a_table_of_something_else_is_not_replaced(tmp_path: Path, capsys, kind: str) -> None:
    out = tmp_path / "new"
    out.mkdir()
    content = b"garbage" if kind == "garbage" else Path("data/samples/samples.parquet").read_bytes()
    (out / "samples.parquet").write_bytes(content)
    assert draw("--count", "5", "--out", str(out)) == 1
    said = capsys.readouterr().err
    assert "must be of an earlier draw" in said and len(said.splitlines()) == 1
    assert [path.name for path in out.iterdir()] == ["samples.parquet"]
    assert (out / "samples.parquet").read_bytes() == content


def test_classes_by_name_and_number_in_one_picture(tmp_path: Path, capsys) -> None:
    arguments = ("--classes", "bag,0", "--count", "40", "--out")
    assert draw(*arguments, str(tmp_path / "a/pictures.png")) == 0
    assert "40 images: " in capsys.readouterr().out
    with Image.open(tmp_path / "a/pictures.png") as picture:
        # Two classes of twenty, sixteen in a row: four rows.
        tile = IMAGE.height * round(64 / IMAGE.width)
        assert picture.height == 4 * tile + 3 * 2
    settings = ("--min-p", "0.1", "--top-k", "3", "--temperature", "0.5", "--seed", "1")
    assert draw(*arguments, str(tmp_path / "b.png"), *settings) == 0
    assert (tmp_path / "b.png").read_bytes() != (tmp_path / "a/pictures.png").read_bytes()


def test_rejection_keeps_the_best_of_a_share(tmp_path: Path) -> None:
    assert draw("--count", "6", "--rejection", "0.25", "--out", str(tmp_path / "best")) == 0
    table = pd.read_parquet(tmp_path / "best/samples.parquet")
    assert table["candidate"].between(0, 3).all() and table["candidate"].any()
    assert table["judge_probability"].between(0, 1).all()


def test_completions_stand_beside_what_is_known(tmp_path: Path, capsys) -> None:
    out = tmp_path / "completed.png"
    where = ("--images", "0,16", "--count", "3", "--out", str(out))
    assert complete("--mask", "upper_half", *where) == 0
    said = capsys.readouterr().out
    assert said.count("exact: what is known comes first") == 2
    assert complete("--mask", "right_half", "--candidates", "5", *where) == 0
    assert "of 5 candidates" in capsys.readouterr().out
    factor = round(64 / IMAGE.width)
    with Image.open(out) as picture:
        pixels = np.asarray(picture)[..., 0]
        strip = pixels[: IMAGE.height * factor, -(5 * IMAGE.width * factor + 4 * 2) :]
        original, known = (
            strip[::factor, start : start + IMAGE.width * factor : factor]
            for start in (0, IMAGE.width * factor + 2)
        )
    test = np.load("data/prepared/test/images.npy")[0, 0]
    np.testing.assert_array_equal(original, test)
    half = IMAGE.width // 2
    np.testing.assert_array_equal(known[:, half:], test[:, half:])
    assert (known[:, :half] == 128).all()


@pytest.mark.parametrize(
    ("program", "arguments", "message"),
    [
        (draw, ["--classes", "snaeker"], "did you mean 'sneaker'?"),
        (draw, ["--classes", "3"], "nor a number from 0 to 2"),
        (draw, ["--rejection", "2"], "--rejection: must be the share to keep"),
        (draw, ["--rejection", "1e-320"], "--rejection: must be the share to keep, from 0.001"),
        (draw, ["--rejection", "nan"], "--rejection: must be the share to keep"),
        (draw, ["--rejection", "0.7"], "nearest are 1 (the best of 1) and 0.5 (the best of 2)"),
        (draw, ["--rejection", "0.34"], "nearest are 0.5 (the best of 2) and 0.3333 (the best"),
        (draw, ["--seed", str(2**63)], "--seed: Input should be less than"),
        (draw, ["--top-p", "7"], "--top-p: Input should be less than or equal to 1; got 7.0"),
        (draw, ["--count", "0"], "--count: Input should be greater than 0; got 0"),
        (draw, ["--temperature", "1e-40"], "--temperature: Input should be greater than"),
        (draw, ["--guidance", "1e308"], "--guidance: Input should be less than"),
        (complete, ["--mask", "none", "--images", "0", "--seed", "-1"], "--seed: "),
        (
            draw,
            ["--guidance-schedule", "cosine"],
            "--guidance-schedule with params.yaml: sampling: guidance 1 is no guidance",
        ),
        (draw, ["--variance-temperature", "0.9"], "must be 1 for codes"),
        (draw, ["--guidance", "2"], "sampling.guidance: must be 1 for a prior trained with"),
        (complete, ["--mask", "half", "--images", "0"], "must be one of none, upper_half"),
        (complete, ["--mask", "centre", "--images", "17"], "numbers from 0 to 16"),
        (complete, ["--mask", "centre", "--file", "x.png"], "prior was always told a class"),
        (complete, ["--mask", "centre", "--images", "1", "--rejection", "1"], "no judge is asked"),
    ],
)
def test_mistakes_are_one_message(program, arguments, message, tmp_path, capsys) -> None:
    out = ["--out", str(tmp_path / "out.png")]
    # The last one given counts.
    assert program("--count", "3", *arguments, *out) == 1
    said = capsys.readouterr().err
    assert message in said and len(said.splitlines()) == 1
    assert not (tmp_path / "out.png").exists()


@pytest.mark.parametrize("out", ["x.jpg", "x.JPEG", "x.tiff", "a.folder/x.gif", "", " "])
def test_other_formats_and_no_name_are_refused(out, line, tmp_path, monkeypatch, capsys):
    (tmp_path / "data").symlink_to(line / "data")
    (tmp_path / "params.yaml").write_text((line / "params.yaml").read_text())
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.iterdir())
    for program, arguments in ((draw, ()), (complete, ("--mask", "none", "--images", "0"))):
        assert program("--count", "2", *arguments, "--out", out) == 1
        said = capsys.readouterr().err
        assert "*.png" in said and f"got {out!r}" in said and len(said.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


def test_what_params_yaml_says_is_not_blamed_on_an_option(
    line, tmp_path, monkeypatch, capsys
) -> None:
    (tmp_path / "data").symlink_to(line / "data")
    monkeypatch.chdir(tmp_path)
    params = {"device": "cpu", "sampling": SAMPLING | {"top_p": 7.0, "guidance_power": 2.0}}
    Path("params.yaml").write_text(json.dumps(params))
    assert draw("--count", "0", "--seed", "1", "--out", "out.png") == 1
    said = sorted(capsys.readouterr().err.splitlines())
    assert [line.split(": ")[0] for line in said] == ["--count", "params.yaml"]
    assert said[1].startswith("params.yaml: sampling.top_p: ")
    assert draw("--count", "3", "--top-p", "1", "--out", "out.png") == 1
    assert capsys.readouterr().err.startswith("params.yaml: sampling: guidance_power must be 1")


def test_where_nothing_is_trained_it_says_so(tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    for program, arguments in (
        (draw, ["--count", "3"]),
        (complete, ["--mask", "none", "--images", "0"]),
    ):
        assert program(*arguments, "--out", "out.png") == 1
        said = capsys.readouterr().err
        assert "nothing is trained here yet" in said and len(said.splitlines()) == 1
