import numpy as np
import pytest
import torch

from stages.metrics.class_accuracy import ClassAccuracy
from tests.metrics.examples import PROTOCOL


def test_counts_hits_per_class_over_batches() -> None:
    accuracy = ClassAccuracy(4)
    seen = torch.tensor([0, 1, 1, 2, 0])
    asked = torch.tensor([0, 1, 2, 2, 1])
    logits = torch.nn.functional.one_hot(seen, 4).float()
    accuracy.update(logits[:2], asked[:2])
    accuracy.update(logits[2:], asked[2:])
    np.testing.assert_array_equal(accuracy.asked, [1, 2, 2, 0])
    np.testing.assert_array_equal(accuracy.per_class, [1, 0.5, 0.5, np.nan])
    figure = accuracy.figure("class_accuracy", PROTOCOL)
    assert figure.value == pytest.approx(0.6) and figure.n == 5 and figure.direction == "higher"
