"""Artifacts appear whole or not at all, are named by their bytes, and tell when they are hurt."""

import errno
import json
import threading
import time

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from stages.core.artifacts import (
    new_artifact,
    open_artifact,
    read_array,
    read_weights,
    reading,
    write_weights,
)
from stages.core.errors import ArtifactError, DataError


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


def whole_array(tmp_path):
    np.save(tmp_path / "whole.npy", np.arange(60).reshape(3, 20))
    return (tmp_path / "whole.npy").read_bytes()


def vouched_for(tmp_path, content):
    with new_artifact(tmp_path / "a", "toy", {}) as folder:
        (folder / "array.npy").write_bytes(content)
    return open_artifact(tmp_path / "a", "toy")


@pytest.mark.parametrize("mapped", [True, False])
def test_arrays_are_read_as_they_were_written(tmp_path, mapped):
    found = read_array(vouched_for(tmp_path, whole_array(tmp_path)), "array.npy", mapped=mapped)
    np.testing.assert_array_equal(found, np.arange(60).reshape(3, 20))
    assert isinstance(found, np.memmap) == mapped and found.flags.writeable != mapped


@pytest.mark.parametrize("mapped", [True, False])
@pytest.mark.parametrize("kind", ["empty", "garbage", "cut", "head alone", "torn head", "pickle"])
def test_an_array_that_the_manifest_vouches_for_is_unreadable_all_the_same(tmp_path, kind, mapped):
    whole = whole_array(tmp_path)
    np.save(tmp_path / "objects.npy", np.array([{}]), allow_pickle=True)
    contents = {
        "empty": b"",
        "garbage": b"\x80garbage" * 40,
        "cut": whole[:-9],
        "head alone": whole[:100],
        "torn head": whole.replace(b"}", b" "),
        "pickle": (tmp_path / "objects.npy").read_bytes(),
    }
    artifact = vouched_for(tmp_path, contents[kind])
    with pytest.raises(ArtifactError, match=r"a/array\.npy: cannot be read \(.*\); .*dvc") as told:
        read_array(artifact, "array.npy", mapped=mapped)
    assert "pickle.load" not in str(told.value)


def test_only_what_a_reader_says_of_its_file_is_damage(tmp_path):
    artifact = vouched_for(tmp_path, b"")
    full, own = OSError(errno.ENOSPC, "full"), DataError("mine")
    for error in (full, own, AssertionError()):
        with pytest.raises(type(error)) as raised, reading(artifact, "array.npy"):
            raise error
        assert raised.value is error
    # As Arrow tells of a broken footer.
    with pytest.raises(ArtifactError, match="cannot be read"), reading(artifact, "array.npy"):
        raise OSError("Couldn't deserialize thrift")
    with (
        pytest.raises(ArtifactError, match="missing from the toy"),
        reading(artifact, "other.npy"),
    ):
        pytest.fail("must not be read")


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
