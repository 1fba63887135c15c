"""Bytes that are not those that were written: noticed, named, and got back."""

import os
from pathlib import Path

import pytest

from tests.faults.conftest import Undisturbed
from tests.faults.place import Place
from tests.faults.table import case

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


def flip(path: Path, share: float = 0.5) -> None:
    """Flip one bit, whatever the permissions say."""
    path.chmod(0o644)
    content = bytearray(path.read_bytes())
    content[int(share * len(content))] ^= 0x10
    path.write_bytes(content)


def cut(path: Path) -> None:
    """Take the last third of a file away."""
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size * 2 // 3)


@pytest.mark.parametrize(
    ("stage", "files", "words"),
    [
        ("train_autoencoder", "*/checkpoint.p*", "damaged checkpoint passed over"),
        ("encode", "*/pieces/*/*.safetensors", "damaged piece, made again"),
    ],
)
@case("a bit flips in the checkpoint of a killed stage", "passed over, named")
def test_unfinished_work(
    line: Place, undisturbed: Undisturbed, stage: str, files: str, words: str, result
) -> None:
    took = undisturbed.took[f"stages.{stage}"]
    line.forget(stage)
    order = {"victim": f"stages.{stage}", "event": int(0.6 * took["events"])}
    assert line.call("dvc", "repro", "--single-item", stage, fault=order) != 0
    assert line.fired.exists()
    # The newest, which a kill between two renames has left under the name of the one before.
    *_, damaged = sorted((line.path / ".work" / stage).glob(files))
    flip(damaged)
    assert line.call("dvc", "repro") == 0, line.said
    assert words in line.said and damaged.name in line.said
    line.require_whole(undisturbed.hashes)
    result(f"{stage}: equal bytes")


@pytest.mark.parametrize(
    ("output", "files", "hurt", "reader"),
    [
        ("data/latents", "train-*.parquet", flip, "train_prior"),
        ("data/latents", "train-*.parquet", cut, "train_prior"),
        ("data/autoencoder", "*.safetensors", flip, "encode"),
        ("data/prepared", "train/images.npy", flip, "encode"),
    ],
    ids=["latents", "shard", "weights", "images"],
)
@case("a bit flips or the end is missing in an output", "named by who reads it; DVC has it cached")
def test_outputs(
    line: Place, undisturbed: Undisturbed, output: str, files: str, hurt, reader: str, result
) -> None:
    [path, *_] = sorted((line.path / output).glob(files))
    hurt(path)
    assert line.call(f"stages.{reader}") == 1
    name = str(path.relative_to(line.path))
    assert f"{name}: " in line.said and "dvc checkout --force" in line.said, line.said
    assert "Traceback" not in line.said
    assert line.call("dvc", "checkout", "--force", output) == 0, line.said
    assert line.call("dvc", "repro") == 0, line.said
    assert "Running stage" not in line.said
    line.require_whole(undisturbed.hashes)
    result(f"{name} ({hurt.__name__}): got back from the cache, equal bytes")


@case("a bit flips in an output and in DVC's cache", "named; got back from the remote")
def test_the_cache_too(line: Place, undisturbed: Undisturbed, tmp_path: Path, result) -> None:
    line.dvc("remote", "add", "-d", "store", str(tmp_path / "store"))
    line.dvc("push", "-q")
    [path] = (line.path / "data/latents").glob("train-*.parquet")
    content = path.read_bytes()
    [cached] = [
        other
        for other in (line.path / ".dvc/cache/files").rglob("*")
        if other.is_file() and other.read_bytes() == content
    ]
    flip(path)
    flip(cached)
    assert line.call("stages.train_prior") == 1
    assert "damaged: sha256 must be" in line.said
    cached.unlink()
    assert line.call("dvc", "pull", "--force") == 0, line.said
    assert path.read_bytes() == content
    assert line.call("dvc", "repro") == 0, line.said
    assert "Running stage" not in line.said
    line.require_whole(undisturbed.hashes)
    result("equal bytes")
