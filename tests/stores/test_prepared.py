"""Prepared images are read as written, without being loaded, and only if undamaged."""

import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from stages.core.artifacts import new_artifact
from stages.core.errors import ArtifactError
from stages.core.shapes import ImageShape
from stages.stores.prepared import PreparedWriter, open_prepared

SHAPE = ImageShape(3, 4, 5)


def images(count: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, *SHAPE), np.uint8)


def write(path: Path, blocks: list[int], classes: bool = True) -> PreparedWriter:
    """Blocks of one stream of images and labels, cut in different places."""
    total = sum(blocks)
    pixels = images(total, 0)
    labels = np.arange(total) % 3
    about = {"image_shape": list(SHAPE), "class_names": ["a", "b", "c"] if classes else None}
    with new_artifact(path, "prepared", about) as folder:
        with PreparedWriter(folder, SHAPE) as writer:
            start = 0
            for count in blocks:
                rows = slice(start, start + count)
                start += count
                factors = {"x": labels[rows] / 2, "shape": labels[rows]}
                for name in ("train", "validation", "test"):
                    writer.add(name, pixels[rows], labels[rows] if classes else None, factors)
    return writer


def test_what_is_written_is_read(tmp_path: Path) -> None:
    write(tmp_path / "prepared", [2, 5, 4])
    prepared = open_prepared(tmp_path / "prepared")
    assert prepared.image_shape == SHAPE and isinstance(prepared.image_shape, ImageShape)
    assert prepared.num_classes == 3 and prepared.class_names == ["a", "b", "c"]
    split = prepared.split("validation")
    assert isinstance(split.images, np.memmap) and not split.images.flags.writeable
    assert len(split) == 11
    np.testing.assert_array_equal(split.images, images(11, 0))
    np.testing.assert_array_equal(split.labels, np.arange(11) % 3)
    assert split.factors is not None
    assert split.factors["shape"].tolist() == (np.arange(11) % 3).tolist()


def test_without_classes(tmp_path: Path) -> None:
    write(tmp_path / "prepared", [4], classes=False)
    prepared = open_prepared(tmp_path / "prepared")
    assert prepared.num_classes == 0 and prepared.split("train").labels is None


def test_an_image_takes_the_same_bytes_whatever_the_blocks(tmp_path: Path) -> None:
    write(tmp_path / "one", [11])
    write(tmp_path / "many", [1] * 11)
    for name in ("images.npy", "labels.npy"):
        one, many = (tmp_path / which / "train" / name for which in ("one", "many"))
        assert one.read_bytes() == many.read_bytes()
    assert (tmp_path / "one/train/images.npy").stat().st_size == 128 + 11 * SHAPE.dims


def test_statistics_and_counts_are_exact(tmp_path: Path) -> None:
    writer = write(tmp_path / "prepared", [3, 8])
    values = images(11, 0) / 255
    statistics = writer.statistics("train")
    np.testing.assert_allclose(statistics["mean"], values.mean(axis=(0, 2, 3)), rtol=1e-12)
    np.testing.assert_allclose(statistics["std"], values.std(axis=(0, 2, 3)), rtol=1e-12)
    assert writer.counts() == {"train": 11, "validation": 11, "test": 11}
    assert writer.class_counts("train", 4) == [4, 4, 3, 0]


def test_damage_is_told(tmp_path: Path) -> None:
    write(tmp_path / "prepared", [4])
    path = tmp_path / "prepared" / "train" / "images.npy"
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    prepared = open_prepared(tmp_path / "prepared")
    prepared.split("test")
    with pytest.raises(ArtifactError, match=r"train/images\.npy: damaged: sha256 must be"):
        prepared.split("train")
    path.write_bytes(content[:-1])
    with pytest.raises(ArtifactError, match=r"images\.npy: must have .* bytes"):
        open_prepared(tmp_path / "prepared")


@pytest.mark.parametrize("name", ["images.npy", "labels.npy", "factors.parquet"])
def test_a_file_that_cannot_be_read_is_told_though_the_manifest_vouches_for_it(
    tmp_path: Path, name: str
) -> None:
    write(tmp_path / "whole", [4])
    about = open_prepared(tmp_path / "whole").artifact.about
    with new_artifact(tmp_path / "prepared", "prepared", about) as folder:
        shutil.copytree(tmp_path / "whole", folder, dirs_exist_ok=True)
        (folder / "manifest.json").unlink()
        (folder / "train" / name).write_bytes(b"garbage")
    prepared = open_prepared(tmp_path / "prepared")
    prepared.split("test")
    with pytest.raises(ArtifactError, match=rf"train/{name}: cannot be read \(.*dvc"):
        prepared.split("train")


def test_writing_does_not_hold_the_set_in_memory(tmp_path: Path) -> None:
    shape = ImageShape(1, 128, 128)
    block = np.zeros((16, *shape), np.uint8)
    tracemalloc.start()
    with PreparedWriter(tmp_path, shape) as writer:
        for _ in range(64):
            writer.add("train", block, None, {})
        _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    written = (tmp_path / "train/images.npy").stat().st_size
    assert written > 64 * block.nbytes > 4 * peak
