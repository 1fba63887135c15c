import numpy as np
import pytest

from stages.core.errors import DataError
from stages.metrics.feature_set import CHUNK_BYTES, FeatureSet

random = np.random.default_rng(0)


def make(images: int = 7, dim: int = 3, classes: int = 5) -> FeatureSet:
    return FeatureSet(
        random.normal(size=(images, dim)).astype(np.float32),
        random.normal(size=(images, classes)).astype(np.float32),
        random.integers(0, 2, size=images),
    )


def test_chunks_put_together_are_the_set(tmp_path) -> None:
    dim = CHUNK_BYTES // 16
    features = np.memmap(tmp_path / "features", np.float32, "w+", shape=(5, dim))
    features[:] = np.arange(5)[:, None]
    seen = list(FeatureSet(features, None, None).chunks())
    assert [len(part) for part in seen] == [2, 2, 1]
    np.testing.assert_array_equal(np.concatenate(seen), features)


def test_a_class_keeps_its_rows_in_order() -> None:
    whole = make()
    part = whole.of_class(1)
    chosen = whole.labels == 1
    np.testing.assert_array_equal(part.features, whole.features[chosen])
    np.testing.assert_array_equal(part.logits, whole.logits[chosen])
    assert set(part.labels) == {1} and len(part) == chosen.sum()
    assert whole.of_class(9) is None


def test_arrays_of_different_images_are_refused() -> None:
    whole = make()
    with pytest.raises(DataError, match="7 feature vectors and 6 labels"):
        FeatureSet(whole.features, whole.logits, whole.labels[:6])
    with pytest.raises(DataError, match="7 feature vectors and 2 logits"):
        FeatureSet(whole.features, whole.logits[:2], None)
    with pytest.raises(DataError, match="empty"):
        FeatureSet(whole.features[:0], None, None)
