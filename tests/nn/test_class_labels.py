"""Classes as a prior is told them."""

import pytest
import torch

from stages.core.errors import ParamsError
from stages.nn.class_labels import classes_of, drop_classes, followed_by_no_class

LABELS = torch.tensor([2, 0, 1])


def test_no_class_is_the_number_after_the_last():
    like = torch.zeros(3, 7)
    assert torch.equal(classes_of(LABELS, 3, like), LABELS)
    assert classes_of(None, 3, like).tolist() == [3, 3, 3]
    assert classes_of(LABELS, 0, like).tolist() == [0, 0, 0]


def test_labels_are_dropped_as_often_as_asked():
    classes = torch.zeros(4000, dtype=torch.int64)
    torch.manual_seed(1)
    dropped = drop_classes(classes, 5, 0.3)
    # Four standard errors: a right implementation fails once in 16,000 seeds.
    assert (dropped == 5).double().mean().item() == pytest.approx(0.3, abs=4 * 0.00725)
    assert set(dropped.tolist()) == {0, 5}
    assert torch.equal(drop_classes(classes, 5, 0.0), classes)


def test_a_guided_pass_has_every_image_twice():
    assert followed_by_no_class(LABELS, 3, 0.1).tolist() == [2, 0, 1, 3, 3, 3]
    for labels, num_classes, rate, message in (
        (None, 3, 0.1, "without classes"),
        (LABELS, 0, 0.1, "without classes"),
        (LABELS, 3, 0.0, "label_dropout 0"),
    ):
        with pytest.raises(ParamsError, match=message):
            followed_by_no_class(labels, num_classes, rate)
