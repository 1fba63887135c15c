"""In which order rows are seen."""

import numpy as np

from stages.training.order import BatchOrder


def test_every_epoch_sees_every_row_once():
    order = BatchOrder(31, 7, seed=1)
    rows = np.concatenate([order.rows(step) for step in range(31)])
    for epoch in range(7):
        assert sorted(rows[31 * epoch : 31 * (epoch + 1)]) == list(range(31))
    assert not np.array_equal(rows[:31], rows[31:62])


def test_a_step_is_the_same_whichever_was_asked_for_before():
    forward, backward = BatchOrder(31, 7, seed=1), BatchOrder(31, 7, seed=1)
    rows = [forward.rows(step) for step in range(12)]
    assert all(np.array_equal(backward.rows(step), rows[step]) for step in reversed(range(12)))
