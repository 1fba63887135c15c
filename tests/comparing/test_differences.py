from dataclasses import replace

import pytest

from stages.comparing.differences import best, differences
from stages.metrics.figure import Figure
from stages.metrics.protocol import SamplerRecord
from tests.metrics.examples import PROTOCOL

SAMPLER = SamplerRecord(12, 0, (), 1.0, 1.0, "mean", {"top_k": 0})
FULL = PROTOCOL.also(
    sampler=SAMPLER, parts={"prior": "ab" * 32}, seed=1, bins=20, found={"error": 0.1}
)


def figure(value: float = 3.0, **changes) -> Figure:
    own = {name: changes.pop(name) for name in ("n", "interval", "direction") if name in changes}
    one = Figure("mse", value, "1", "lower", 17, FULL.also(**changes))
    return replace(one, **own)


def test_equal_protocols_differ_in_nothing() -> None:
    found = differences(figure(1.0), figure(2.0, found={"error": 0.7}))
    assert found.unlike == found.compared == ()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"n": 18}, "n"),
        ({"reference_n": 16}, "reference_n"),
        ({"reference_sha256": "cd" * 32}, "reference_sha256"),
        ({"reference_split": "train"}, "reference_split"),
        ({"extractor_sha256": "ef" * 32}, "extractor_sha256"),
        ({"resize": "bicubic"}, "resize"),
        ({"antialias": True}, "antialias"),
        ({"rounding": "down"}, "rounding"),
        ({"label_balance": {"one": 3}}, "label_balance"),
        ({"bins": 30}, "details.bins"),
        ({"subsets": 4}, "details.subsets"),
    ],
)
def test_what_forbids_a_comparison_is_named(changes: dict, name: str) -> None:
    for pair in ((figure(), figure(**changes)), (figure(**changes), figure())):
        found = differences(*pair)
        assert any(difference.name.startswith(name) for difference in found.unlike)
        assert found.compared == ()


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"seed": 2}, "seed"),
        ({"parts": {"prior": "cd" * 32}}, "parts.prior"),
        ({"sampler": replace(SAMPLER, temperature=0.5)}, "sampler.temperature"),
        ({"sampler": replace(SAMPLER, settings={"top_k": 5})}, "sampler.settings.top_k"),
    ],
)
def test_what_is_under_comparison_is_told_apart(changes: dict, name: str) -> None:
    found = differences(figure(), figure(**changes))
    assert found.unlike == ()
    assert [difference.name for difference in found.compared] == [name]


def test_digests_are_shown_by_their_beginning() -> None:
    found = differences(figure(), figure(reference_sha256="cd" * 32))
    assert str(found.unlike[0]) == f"reference_sha256: {'ab' * 6} | {'cd' * 6}"


def test_best_needs_equal_protocols_and_intervals_apart() -> None:
    low, high = figure(1.0, interval=(0.5, 1.5)), figure(3.0, interval=(2.0, 4.0))
    assert best([high, low]) == 1 and best([low, high, high]) == 0
    upwards = [replace(one, direction="higher") for one in (high, low)]
    assert best(upwards) == 0
    assert best([low, figure(2.0, interval=(1.5, 2.5))]) is None, "intervals touch"
    assert best([low, figure(3.0)]) is None, "one has no interval"
    assert best([low, figure(3.0, interval=(2.0, 4.0), resize="bicubic")]) is None
    assert best([replace(one, direction="none") for one in (low, high)]) is None
    assert best([low]) is None
