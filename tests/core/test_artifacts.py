"""Artifacts appear whole or not at all, are named by their bytes, and tell when they are hurt."""

import errno
import json
import threading
import time

import pytest
import torch
from safetensors import SafetensorError

from stages.core.artifacts import new_artifact, open_artifact, read_weights, write_weights
from stages.core.errors import ArtifactError


def write(path, value=1.0, about=None):
    with new_artifact(path, "toy", about or {"answer": 42}) as folder:
        write_weights(folder / "weights.safetensors", {"w": torch.full((2, 3), value)})
        (folder / "inner").mkdir()
        (folder / "inner" / "note.txt").write_text("note")
    return open_artifact(path, "toy")


def test_round_trip_and_name(tmp_path):
    artifact = write(tmp_path / "a")
    assert artifact.about == {"answer": 42}
    assert set(artifact.files) == {"weights.safetensors", "inner/note.txt"}
    assert torch.equal(read_weights(artifact, "weights.safetensors")["w"], torch.ones(2, 3))
    assert write(tmp_path / "b").digest == artifact.digest
    assert write(tmp_path / "c", value=2.0).digest != artifact.digest
    assert write(tmp_path / "d", about={"answer": 43}).digest != artifact.digest


def test_a_failure_leaves_what_was_there(tmp_path):
    before = write(tmp_path / "a").digest
    with pytest.raises(RuntimeError), new_artifact(tmp_path / "a", "toy", {}) as folder:
        (folder / "half.bin").write_bytes(b"half")
        raise RuntimeError
    assert open_artifact(tmp_path / "a", "toy").digest == before
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("kind", ["folder", "link", "file"])
def test_what_is_there_is_replaced(tmp_path, kind):
    elsewhere = tmp_path / "elsewhere"
    place = elsewhere if kind == "link" else tmp_path / "a"
    if kind == "file":
        place.write_text("what was there")
    else:
        place.mkdir()
        (place / "old.txt").write_text("what was there")
    if kind == "link":
        (tmp_path / "a").symlink_to(elsewhere)
    assert "old.txt" not in write(tmp_path / "a").files
    assert (tmp_path / "a").is_dir() and not (tmp_path / "a").is_symlink()
    assert kind != "link" or (elsewhere / "old.txt").exists()


def test_two_that_build_the_same_do_not_mix(tmp_path):
    """The second begins when the first is done, and then replaces it."""
    begun, go_on = threading.Event(), threading.Event()

    def first():
        with new_artifact(tmp_path / "a", "toy", {"of": "first"}) as folder:
            begun.set()
            go_on.wait(10)
            (folder / "first.txt").write_text("first")

    def second():
        with new_artifact(tmp_path / "a", "toy", {"of": "second"}) as folder:
            (folder / "second.txt").write_text("second")

    threads = [threading.Thread(target=each) for each in (first, second)]
    threads[0].start()
    assert begun.wait(10)
    threads[1].start()
    time.sleep(0.1)
    go_on.set()
    for thread in threads:
        thread.join()
    found = open_artifact(tmp_path / "a", "toy")
    assert found.about == {"of": "second"} and set(found.files) == {"second.txt"}
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_missing_and_foreign(tmp_path):
    with pytest.raises(ArtifactError, match="the toy artifact must be here.*dvc repro"):
        open_artifact(tmp_path / "nothing", "toy")
    write(tmp_path / "a")
    with pytest.raises(ArtifactError, match="must be an artifact of type 'latents', is 'toy'"):
        open_artifact(tmp_path / "a", "latents")
    (tmp_path / "a" / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="manifest.json: unreadable"):
        open_artifact(tmp_path / "a", "toy")


def test_truncated_and_flipped(tmp_path):
    artifact = write(tmp_path / "a")
    path = tmp_path / "a" / "weights.safetensors"
    whole = path.read_bytes()
    path.write_bytes(whole[:-1])
    with pytest.raises(ArtifactError, match=r"weights.safetensors: must have \d+ bytes, has \d+"):
        open_artifact(tmp_path / "a", "toy")
    path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(ArtifactError, match="damaged: sha256 must be .*dvc checkout"):
        read_weights(artifact, "weights.safetensors")
    path.unlink()
    with pytest.raises(ArtifactError, match="is missing"):
        open_artifact(tmp_path / "a", "toy")


def test_a_full_disk_is_told_as_the_system_tells_it(tmp_path, monkeypatch):
    def full(tensors, path):
        raise SafetensorError("Error while serializing: No space left on device (os error 28)")

    monkeypatch.setattr("stages.core.artifacts.save_file", full)
    with pytest.raises(OSError) as caught:
        write_weights(tmp_path / "weights", {"w": torch.zeros(3)})
    assert caught.value.errno == errno.ENOSPC and caught.value.filename.endswith("weights")


@pytest.mark.parametrize("name", ["../secret", "/etc/passwd", "inner/../../secret"])
def test_a_manifest_that_names_files_outside_is_refused(tmp_path, name):
    write(tmp_path / "a")
    manifest = tmp_path / "a" / "manifest.json"
    content = json.loads(manifest.read_text())
    content["files"][name] = {"bytes": 1, "sha256": "0" * 64}
    manifest.write_text(json.dumps(content))
    with pytest.raises(ArtifactError, match="which lies outside"):
        open_artifact(tmp_path / "a", "toy")


@pytest.mark.parametrize("text", ["[]", '{"files": [], "about": {}, "type": "toy"}', "[" * 100_000])
def test_a_manifest_that_is_none_is_refused(tmp_path, text):
    write(tmp_path / "a")
    (tmp_path / "a" / "manifest.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"manifest.json: (unreadable|nested)"):
        open_artifact(tmp_path / "a", "toy")
