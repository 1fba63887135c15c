"""`prepare` as a program: splits by content, whole or not at all, everything written down."""

import json
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stages.core.errors import DataError, Interrupted
from stages.core.stage import Run
from stages.core.tracking import NullTracker
from stages.datasets.base import SPLITS, DatasetOptions
from stages.prepare import PREPARED, PrepareParams, prepare, split_of_each
from stages.stores.prepared import Prepared, open_prepared

DIGITS: dict[str, Any] = {
    "kind": "digits",
    "watch": "data/README.md",
    "validation_fraction": 0.1,
    "test_fraction": 0.15,
}


class Recorder(NullTracker):
    """Remembers the metrics."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}

    def _append(self, kind: str, file: Path | None = None, **fields: Any) -> None:
        self.metrics.update(fields.get("metrics", {}))


@pytest.fixture
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.chdir(tmp_path)
    return Run("prepare", tmp_path / "work", {}, Recorder(), threading.Event())


def params(values: dict[str, Any]) -> PrepareParams:
    return PrepareParams(dataset=DatasetOptions.of_kind(values["kind"])(**values))


def prepared(values: dict[str, Any], run: Run) -> Prepared:
    prepare(params(values), run)
    return open_prepared(PREPARED)


def folder_options(path: Path, **changes: Any) -> dict[str, Any]:
    more = {
        "kind": "image_folder",
        "path": str(path),
        "resolution": 4,
        "channels": 1,
        "filter": "box",
        "background": "black",
        "on_bad_file": "skip",
        "validation_fraction": 0.3,
        "test_fraction": 0.3,
    }
    return DIGITS | more | changes


def write_images(folder: Path, numbers: range) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 256, (4, 4), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:03}.png")


def rows(split: Any) -> set[bytes]:
    return {image.tobytes() for image in split.images}


def test_digits_end_to_end(run: Run) -> None:
    digits = prepared(DIGITS, run)
    about = digits.artifact.about
    assert digits.image_shape == (1, 8, 8) and digits.num_classes == 10
    counts = {name: len(digits.split(name)) for name in SPLITS}
    assert counts == about["counts"] and sum(counts.values()) == 1797
    for name in SPLITS:
        labels = digits.split(name).labels
        assert np.bincount(labels, minlength=10).tolist() == about["class_counts"][name]
    values = digits.split("train").images / 255
    assert about["statistics"]["mean"] == pytest.approx([values.mean()])
    assert about["statistics"]["std"] == pytest.approx([values.std()])
    assert about["source"] == "digits" and about["rejected"] == []
    assert "scikit-learn" in about["provenance"]
    assert run.tracker.metrics["images/train"] == counts["train"]


def test_the_same_bytes_again(run: Run) -> None:
    first = prepared(DIGITS, run).artifact.digest
    assert prepared(DIGITS, run).artifact.digest == first


def test_fractions_are_kept_within_chance() -> None:
    images = np.random.default_rng(0).integers(0, 256, (20000, 1, 4, 4), np.uint8)
    split = split_of_each(images, validation_fraction=0.2, test_fraction=0.1)
    shares = np.bincount(split, minlength=3) / len(images)
    # Four standard deviations of a share of 20,000.
    np.testing.assert_allclose(shares, [0.7, 0.2, 0.1], atol=4 * (0.21 / 20000) ** 0.5)


def test_another_test_fraction_leaves_validation_alone() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2000, 1, 4, 4), np.uint8)
    few = split_of_each(images, validation_fraction=0.2, test_fraction=0.1)
    many = split_of_each(images, validation_fraction=0.2, test_fraction=0.3)
    np.testing.assert_array_equal(few == 1, many == 1)
    assert set(many[few == 2]) == {2}


def test_adding_images_moves_none_and_repeats_stay_together(tmp_path: Path, run: Run) -> None:
    write_images(tmp_path / "images", range(10, 50))
    before = prepared(folder_options(tmp_path / "images"), run)
    old = {name: rows(before.split(name)) for name in SPLITS}
    write_images(tmp_path / "images", range(100))
    for number in range(10, 50):
        copy = tmp_path / "images" / f"copy{number}.png"
        copy.write_bytes((tmp_path / "images" / f"{number:03}.png").read_bytes())
    after = prepared(folder_options(tmp_path / "images"), run)
    new = {name: rows(after.split(name)) for name in SPLITS}
    assert sum(after.artifact.about["counts"].values()) == 140
    for name in SPLITS:
        assert old[name] < new[name]
    assert not new["train"] & new["test"] and not new["train"] & new["validation"]
    assert not new["validation"] & new["test"]


def test_what_is_left_out_is_written_down(tmp_path: Path, run: Run) -> None:
    write_images(tmp_path / "images", range(40))
    (tmp_path / "images" / "bad.png").write_bytes(b"")
    found = prepared(folder_options(tmp_path / "images"), run)
    assert found.artifact.about["rejected"] == [{"path": "bad.png", "reason": "empty (0 bytes)"}]
    assert found.num_classes == 0 and found.artifact.about["class_counts"] is None
    assert run.tracker.metrics["images/rejected"] == 1


def test_a_class_without_a_training_image_is_refused(tmp_path: Path, run: Run) -> None:
    """Its name alone would make it one that samples are drawn of."""
    for name in ("a", "b"):
        write_images(tmp_path / "images" / name, range(40))
    (tmp_path / "images" / "c").mkdir()
    (tmp_path / "images" / "c" / "broken.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="must have a training image, c would have none"):
        prepare(params(folder_options(tmp_path / "images")), run)
    assert not PREPARED.exists()


def test_an_empty_split_is_refused_and_nothing_is_left(tmp_path: Path, run: Run) -> None:
    write_images(tmp_path / "images", range(3))
    options = folder_options(
        tmp_path / "images", validation_fraction=0.000001, test_fraction=0.000001
    )
    with pytest.raises(DataError, match="validation and test would have none of 3; give more"):
        prepare(params(options), run)
    assert not PREPARED.exists() and list(PREPARED.parent.iterdir()) == []


def test_an_official_test_split_is_taken_as_it_is(shared_data: Path, run: Run) -> None:
    options = DIGITS | {
        "kind": "fashion_mnist",
        "root": str(shared_data / "fashion_mnist"),
        "download": False,
        "resolution": 32,
        "test_fraction": 0.4,
    }
    fashion = prepared(options, run)
    counts = fashion.artifact.about["counts"]
    assert counts["test"] == 10000 and fashion.artifact.about["class_counts"]["test"] == [1000] * 10
    assert counts["validation"] / 60000 == pytest.approx(0.1, abs=0.005)


def test_factors_stay_with_their_images(run: Run) -> None:
    options = DIGITS | {
        "kind": "shapes",
        "resolution": 16,
        "channels": 3,
        "supersampling": 1,
        "scales": 2,
        "orientations": 2,
        "columns": 4,
        "rows": 4,
        "hues": 3,
        "count": 0,
        "seed": 0,
    }
    train = prepared(options, run).split("train")
    assert list(train.factors) == ["shape", "scale", "orientation", "x", "y", "hue"]
    assert train.factors["shape"].tolist() == train.labels.tolist()
    red = train.factors["hue"].to_numpy() == 0
    assert not train.images[red][:, 1:].any() and train.images[red][:, 0].any()


def test_a_stop_leaves_the_old_artifact_whole(run: Run) -> None:
    before = prepared(DIGITS, run).artifact.digest
    run.stop.set()
    with pytest.raises(Interrupted, match="run again"):
        prepare(params(DIGITS | {"test_fraction": 0.3}), run)
    assert open_prepared(PREPARED).artifact.digest == before
    assert [entry.name for entry in PREPARED.parent.iterdir()] == ["prepared"]


def test_the_manifest_is_plain_json(run: Run) -> None:
    prepared(DIGITS, run)
    about = json.loads((PREPARED / "manifest.json").read_text())["about"]
    assert about["options"]["test_fraction"] == 0.15
    assert about["image_shape"] == [1, 8, 8] and about["class_names"][3] == "3"
