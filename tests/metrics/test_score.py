import math

import numpy as np
import pytest
import torch

from benchmarks.distances.peers import torchmetrics_score
from stages.metrics.score import score_figures
from tests.metrics.feature_sets import feature_set, pair

random = np.random.default_rng(0)
REFERENCE = feature_set(np.zeros((4, 2)))


def figure(logits, **options):
    [found] = score_figures(pair(feature_set(logits[:, :2], logits), REFERENCE, **options))
    return found


def test_sure_and_even_is_the_number_of_classes_and_a_shrug_is_one() -> None:
    sure = 60 * np.eye(7)[np.arange(28) % 7]
    assert figure(sure).value == pytest.approx(7)
    assert figure(np.zeros((12, 7))).value == pytest.approx(1)
    # Only three of the classes ever come.
    assert figure(60 * np.eye(7)[np.arange(12) % 3]).value == pytest.approx(3)


def test_agrees_with_torchmetrics_and_with_its_own_splits() -> None:
    logits = (3 * random.normal(size=(60, 5))).astype(np.float32)
    expected = torchmetrics_score(torch.from_numpy(logits))
    assert figure(logits).value == pytest.approx(expected, rel=1e-5)
    alone = [figure(part).value for part in np.array_split(logits, 4)]
    found = figure(logits).protocol.found
    assert found["mean_of_splits"] == pytest.approx(np.mean(alone))
    assert found["deviation_of_splits"] == pytest.approx(np.std(alone))


def test_the_interval_covers_the_scores_of_other_draws() -> None:
    def draw() -> np.ndarray:
        return 3 * random.normal(size=(200, 5))

    truth = figure(3 * random.normal(size=(10_000, 5)), resamples=0).value
    intervals = [figure(draw(), level=0.9).interval for _ in range(60)]
    covered = sum(low < truth < high for low, high in intervals)
    # Binomial of 60 at 0.9: within 46 and 60 with probability 0.999.
    assert covered >= 46
    assert math.isclose(np.mean(intervals), truth, rel_tol=0.05)


def test_without_classes_there_is_no_score_and_only_inceptions_is_called_so() -> None:
    assert score_figures(pair(REFERENCE, REFERENCE)) == []
    logits = random.normal(size=(9, 3))
    assert figure(logits, network="inception").name == "inception_score"
    assert figure(logits).name == "score_classifier"
