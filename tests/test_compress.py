"""`python -m stages.compress`: images into a file and back."""

from pathlib import Path

import numpy as np
import pytest

from stages.compress import main
from tests.evaluation.tiny_line import CODES, COUNTS, IMAGE, make_line


@pytest.fixture(scope="module")
def line(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("line")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        make_line(folder, CODES, ["a", "b", "c"])
    return folder


@pytest.fixture(autouse=True)
def inside(line: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(line)


def test_a_split_there_and_back(line: Path, tmp_path: Path, capsys) -> None:
    file, decoded = str(tmp_path / "test.coded"), tmp_path / "test.npy"
    assert main(["encode", "test", file]) == 0
    assert f"{COUNTS['test']} of {'x'.join(map(str, IMAGE))}, with their classes" in (
        capsys.readouterr().out
    )
    assert main(["decode", file, str(decoded)]) == 0
    original = np.load(line / "data/prepared/test/images.npy")
    assert np.array_equal(np.load(decoded), original)
    assert main(["describe", file]) == 0
    assert "bits per dim" in capsys.readouterr().out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["test.coded", "test.npy"]


def test_mistakes_are_one_message_and_leave_nothing(tmp_path: Path, capsys) -> None:
    bad = tmp_path / "bad.coded"
    bad.write_bytes(b"LATENTLN and then nothing")
    out = str(tmp_path / "out")
    for arguments in (
        ["encode", "nowhere", out],
        ["encode", str(tmp_path), out],
        ["decode", str(bad), out],
        ["describe", str(tmp_path / "absent")],
        ["encode", "test", out, "--prior", "data/latents"],
    ):
        assert main(arguments) == 1
        captured = capsys.readouterr()
        assert captured.out == "" and len(captured.err.splitlines()) == 1, arguments
    assert [path.name for path in tmp_path.iterdir()] == ["bad.coded"]
