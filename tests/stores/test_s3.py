"""Images and latents in an S3-compatible store: moto's server on the loopback device."""

import json

import numpy as np
import pytest
from PIL import Image

from stages.core.errors import ArtifactError, DataError
from stages.core.sections import load_member, validate
from stages.datasets.base import DatasetOptions, ImageSource
from stages.latents import main
from stages.stores.latents import open_latents
from tests.stores.test_latents import CODES, written

moto_server = pytest.importorskip(
    "moto.server", reason="needs moto and s3fs: pip install 'latentline[dev]'"
)
s3fs = pytest.importorskip("s3fs", reason="needs s3fs: pip install 'latentline[s3]'")


@pytest.fixture
def bucket(monkeypatch, tmp_path):
    """An empty bucket, and the environment that leads to it."""
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    for name, value in {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "LATENTLINE_CACHE": str(tmp_path / "cache"),
    }.items():
        monkeypatch.setenv(name, value)
    system = s3fs.S3FileSystem(skip_instance_cache=True)
    system.mkdir("line")
    yield system
    # moto keeps buckets in this process, whichever server serves them.
    system.rm("line", recursive=True)
    s3fs.S3FileSystem.clear_instance_cache()
    server.stop()


def test_latents_in_a_bucket_are_those_that_were_written(bucket, tmp_path, monkeypatch, capsys):
    local = open_latents(written(tmp_path, **CODES)[0], scratch=tmp_path / "scratch")
    bucket.put(str(tmp_path / "latents"), "line/latents", recursive=True)
    # Room for one file at a time.
    largest = max(path.stat().st_size for path in (tmp_path / "latents").iterdir())
    monkeypatch.setenv("LATENTLINE_CACHE_BYTES", str(largest))
    remote = open_latents("s3://line/latents", scratch=tmp_path / "scratch")
    assert remote.artifact.digest == local.artifact.digest
    for name, values in local.split("train").columns.items():
        assert np.array_equal(remote.split("train").columns[name], values), name
    cached = sum(path.stat().st_size for path in (tmp_path / "cache").glob("??/*"))
    assert 0 < cached <= largest
    assert main(["describe", "s3://line/latents", "--verify"]) == 0
    assert "every byte is as it was written" in capsys.readouterr().out


def test_damage_in_a_bucket_is_named(bucket, tmp_path):
    written(tmp_path, **CODES)
    bucket.put(str(tmp_path / "latents"), "line/latents", recursive=True)
    [shard, *_] = [path for path in bucket.ls("line/latents") if path.endswith(".parquet")]
    content = bytearray(bucket.cat_file(shard))
    content[50] ^= 1
    bucket.pipe_file(shard, bytes(content))
    with pytest.raises(ArtifactError, match="damaged: sha256 must be"):
        open_latents("s3://line/latents", scratch=tmp_path / "scratch").split("train")
    bucket.rm_file(shard)
    with pytest.raises(ArtifactError, match="is missing"):
        open_latents("s3://line/latents")
    with pytest.raises(DataError, match="s3://line/nothing: missing"):
        open_latents("s3://line/nothing")


def blocks(place):
    values = {
        "kind": "image_folder",
        "path": str(place),
        "watch": "data/README.md",
        "validation_fraction": 0.1,
        "test_fraction": 0.1,
        "resolution": 8,
        "channels": 3,
        "filter": "lanczos",
        "background": "white",
        "on_bad_file": "skip",
    }
    options = validate(DatasetOptions.of_kind("image_folder"), values, source="test")
    source = load_member(ImageSource, "image_folder")(options)
    rejected = []
    found = list(source.blocks(rejected))
    return found, source.class_names(), [item.reason for item in rejected], source.provenance()


def test_images_in_a_bucket_are_those_of_the_folder(bucket, tmp_path, monkeypatch):
    numbers = np.random.default_rng(0)
    for index in range(7):
        folder = tmp_path / "images" / f"class_{index % 2}"
        folder.mkdir(parents=True, exist_ok=True)
        pixels = numbers.integers(0, 256, (9, 11, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    (tmp_path / "images/class_0/broken.png").write_bytes(b"no image")
    bucket.put(str(tmp_path / "images"), "line/images", recursive=True)
    monkeypatch.setenv("LATENTLINE_CACHE_BYTES", "2000")
    here, there = blocks(tmp_path / "images"), blocks("s3://line/images")
    assert np.array_equal(here[0][0].images, there[0][0].images)
    assert here[1:] == there[1:]
    assert json.dumps(there[2])
