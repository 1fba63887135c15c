"""Kept arrays: what was written is read, what is damaged is named and gone."""

import numpy as np
import pytest

from stages.core.kept_arrays import read_arrays, write_arrays


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "folder" / "piece.npz"
    arrays = {"nats": np.linspace(0, 1, 7), "labels": np.arange(4)}
    write_arrays(path, arrays)
    found = read_arrays(path)
    assert found is not None and found.keys() == arrays.keys()
    assert all(np.array_equal(found[name], arrays[name]) for name in arrays)
    assert [file.name for file in path.parent.iterdir()] == ["piece.npz"]


def test_nothing_there_is_nothing(tmp_path, capsys):
    assert read_arrays(tmp_path / "piece.npz") is None
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "other"])
def test_damage_is_named_and_removed(tmp_path, capsys, damage):
    path = tmp_path / "piece.npz"
    write_arrays(path, {"nats": np.linspace(0, 1, 50)})
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(
        {"flip": bytes(content), "cut": content[:100], "empty": b"", "other": b"none"}[damage]
    )
    assert read_arrays(path) is None
    assert f"{path}: damaged piece" in capsys.readouterr().err
    assert not path.exists()
