"""MNIST, Fashion-MNIST and CIFAR-10: in every layout, and only if they are what was published."""

import gzip
import hashlib
import lzma
import pickle
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from stages.core.errors import DataError
from stages.core.sections import load_member
from stages.datasets.base import DatasetOptions, ImageSource
from stages.files.torchvision_import import import_torchvision

datasets = import_torchvision("datasets")

BASE: dict[str, Any] = {
    "watch": "data/README.md",
    "validation_fraction": 0.1,
    "test_fraction": 0.0,
    "download": False,
}


def source(kind: str, root: Path, **more: Any) -> ImageSource:
    options = DatasetOptions.of_kind(kind)(**BASE | more, kind=kind, root=str(root))
    return load_member(ImageSource, kind)(options)


def idx(values: np.ndarray) -> bytes:
    header = bytes([0, 0, 8, values.ndim]) + struct.pack(f">{values.ndim}I", *values.shape)
    return gzip.compress(header + values.tobytes(), mtime=0)


def md5(content: bytes) -> str:
    return hashlib.md5(content).hexdigest()


@pytest.fixture
def tiny_mnist(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A set of 5 + 3 images in the format, published as MNIST."""
    numbers = np.random.default_rng(0)
    files = {}
    for part, count in (("train", 5), ("t10k", 3)):
        images = numbers.integers(0, 256, (count, 28, 28), np.uint8)
        files[f"{part}-images-idx3-ubyte.gz"] = idx(images)
        files[f"{part}-labels-idx1-ubyte.gz"] = idx(np.arange(count, dtype=np.uint8))
    resources = [(name, md5(content)) for name, content in files.items()]
    monkeypatch.setattr(datasets.MNIST, "resources", resources)
    return files


@pytest.fixture
def tiny_cifar(monkeypatch: pytest.MonkeyPatch) -> dict[str, bytes]:
    """A set of 4 + 2 images in the format, published as CIFAR-10."""
    numbers = np.random.default_rng(0)
    files = {"batches.meta": pickle.dumps({"label_names": ["cat", "dog"]})}
    for name, count in (("data_batch_1", 4), ("test_batch", 2)):
        data = numbers.integers(0, 256, (count, 3072), np.uint8)
        files[name] = pickle.dumps({"data": data, "labels": [i % 2 for i in range(count)]})
    pairs = {name: [name, md5(content)] for name, content in files.items()}
    meta = {"filename": "batches.meta", "key": "label_names", "md5": pairs["batches.meta"][1]}
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [pairs["data_batch_1"]])
    monkeypatch.setattr(datasets.CIFAR10, "test_list", [pairs["test_batch"]])
    monkeypatch.setattr(datasets.CIFAR10, "meta", meta)
    return files


def write(folder: Path, files: dict[str, bytes]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)


def test_torchvision_is_usable_without_its_compiled_operators() -> None:
    assert issubclass(datasets.FashionMNIST, datasets.MNIST)
    transforms = import_torchvision("transforms.v2")
    image = transforms.functional.to_image(np.zeros((8, 8), np.uint8))
    assert transforms.Resize(4)(image).shape == (1, 4, 4)


@pytest.mark.parametrize("folder", ["MNIST/raw", "."])
def test_mnist_in_both_layouts(tiny_mnist: dict[str, bytes], tmp_path: Path, folder: str) -> None:
    write(tmp_path / folder, tiny_mnist)
    train, test = source("mnist", tmp_path, resolution=32).blocks([])
    assert (train.split, test.split) == ("train", "test")
    assert train.images.shape == (5, 1, 32, 32) and test.images.shape == (3, 1, 32, 32)
    assert train.labels.tolist() == [0, 1, 2, 3, 4]
    raw = gzip.decompress(tiny_mnist["train-images-idx3-ubyte.gz"])[16:]
    inner = train.images[:, 0, 2:30, 2:30]
    assert inner.tobytes() == raw
    assert train.images.sum() == inner.sum()


def test_an_uneven_border_is_one_wider_below_and_right(
    tiny_mnist: dict[str, bytes], tmp_path: Path
) -> None:
    write(tmp_path, tiny_mnist)
    plain, _ = source("mnist", tmp_path, resolution=28).blocks([])
    padded, _ = source("mnist", tmp_path, resolution=31).blocks([])
    np.testing.assert_array_equal(padded.images[:, :, 1:29, 1:29], plain.images)


def test_a_missing_file_is_named_with_its_places(
    tiny_mnist: dict[str, bytes], tmp_path: Path
) -> None:
    del tiny_mnist["t10k-labels-idx1-ubyte.gz"]
    write(tmp_path, tiny_mnist)
    with pytest.raises(
        DataError, match=r"MNIST/raw/t10k-labels-idx1-ubyte\.gz: missing.*download: true"
    ):
        list(source("mnist", tmp_path, resolution=28).blocks([]))


def test_a_damaged_file_is_named(tiny_mnist: dict[str, bytes], tmp_path: Path) -> None:
    tiny_mnist["train-labels-idx1-ubyte.gz"] += b"x"
    write(tmp_path, tiny_mnist)
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: not the published file"):
        list(source("mnist", tmp_path, resolution=28).blocks([]))


def test_a_failed_download_is_told(
    tiny_mnist: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_net(*args: Any, **more: Any) -> None:
        raise RuntimeError("no route to host")

    monkeypatch.setattr(datasets.MNIST, "download", no_net)
    with pytest.raises(DataError, match=r"download failed \(no route to host\)"):
        list(source("mnist", tmp_path, resolution=28, download=True).blocks([]))


@pytest.mark.parametrize("folder", ["cifar-10-batches-py", "."])
@pytest.mark.parametrize("compressed", [False, True])
def test_cifar_in_every_layout(
    tiny_cifar: dict[str, bytes], tmp_path: Path, folder: str, compressed: bool
) -> None:
    files = tiny_cifar
    if compressed:
        files = {f"{name}.xz": lzma.compress(content) for name, content in files.items()}
    write(tmp_path / folder, files)
    of_kind = source("cifar10", tmp_path)
    train, test = of_kind.blocks([])
    assert (train.images.shape, train.split) == ((4, 3, 32, 32), "train")
    assert (test.labels.tolist(), test.split) == ([0, 1], "test")
    assert of_kind.class_names() == ["cat", "dog"]
    data = pickle.loads(tiny_cifar["test_batch"])["data"]
    np.testing.assert_array_equal(test.images.reshape(2, -1), data)


def test_no_pickle_is_opened_before_its_md5_was_compared(
    tiny_cifar: dict[str, bytes], tmp_path: Path
) -> None:
    class Trap:
        def __reduce__(self) -> Any:
            return (Path.touch, (tmp_path / "sprung",))

    write(tmp_path, tiny_cifar | {"data_batch_1": pickle.dumps(Trap())})
    with pytest.raises(DataError, match="data_batch_1: not the published file: md5"):
        list(source("cifar10", tmp_path).blocks([]))
    assert not (tmp_path / "sprung").exists()


def test_a_cut_xz_file_is_named(tiny_cifar: dict[str, bytes], tmp_path: Path) -> None:
    cut = lzma.compress(tiny_cifar.pop("data_batch_1"))[:-20]
    write(tmp_path, tiny_cifar | {"data_batch_1.xz": cut})
    with pytest.raises(DataError, match=r"data_batch_1\.xz: damaged: not a whole xz file"):
        list(source("cifar10", tmp_path).blocks([]))


def test_the_real_fashion_mnist(shared_data: Path) -> None:
    of_kind = source("fashion_mnist", shared_data / "fashion_mnist", resolution=32)
    blocks = list(of_kind.blocks([]))
    assert max(block.images.nbytes for block in blocks) <= 2**23
    test = np.concatenate([block.images for block in blocks if block.split == "test"])
    labels = np.concatenate([block.labels for block in blocks if block.split == "test"])
    assert len(test) == 10000 and np.bincount(labels).tolist() == [1000] * 10
    inner = test[:, 0, 2:30, 2:30] / 255
    # The figures of arXiv:1708.07747's test part.
    assert inner.mean() == pytest.approx(0.286849, abs=1e-6)
    assert inner.std() == pytest.approx(0.352444, abs=1e-6)
    assert of_kind.class_names()[9] == "Ankle boot"


def test_the_real_cifar(shared_data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.CIFAR10, "train_list", [])
    of_kind = source("cifar10", shared_data / "cifar10")
    blocks = list(of_kind.blocks([]))
    images = np.concatenate([block.images for block in blocks])
    assert len(images) == 10000 and of_kind.class_names()[:2] == ["airplane", "automobile"]
    mean = images.mean(axis=(0, 2, 3)) / 255
    np.testing.assert_allclose(mean, [0.494214, 0.485131, 0.450409], atol=1e-6)
