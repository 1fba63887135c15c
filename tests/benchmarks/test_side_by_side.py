"""What benchmarks of speed share: turns, ratios, ceilings, missing peers, tables."""

import csv
import json
import time
from dataclasses import replace

import pytest
import torch

from benchmarks.side_by_side import ceiling, peers
from benchmarks.side_by_side.ceiling import ceiling_contender
from benchmarks.side_by_side.contest import Contender, Contest, measure
from benchmarks.side_by_side.machine import describe_run
from benchmarks.side_by_side.peers import peer
from benchmarks.side_by_side.report import markdown, write_report

CPU = torch.device("cpu")


def contest(*contenders):
    return Contest("made up", "small", "pages", contenders)


def two_that_note(calls):
    return [
        Contender(name, role, lambda name=name: calls.append(name), 1)
        for name, role in (("a", "ours"), ("b", "peer"))
    ]


def test_contenders_take_turns_after_once_for_nothing():
    calls = []
    ours, theirs = two_that_note(calls)
    found = measure(contest(ours, theirs), rounds=2)
    assert calls == ["a", "b"] * 3
    assert all(len(timed.wall_seconds) == 2 for timed in found)
    calls.clear()
    measure(contest(ours, theirs), rounds=1, warm_up=False)
    assert calls == ["a", "b"]


def test_the_first_of_several_runs_in_a_row_is_not_timed():
    calls = []
    three_in_a_row = replace(contest(*two_that_note(calls)), in_a_row=3)
    found = measure(three_in_a_row, rounds=2, warm_up=False)
    assert "".join(calls) == "aaabbb" * 2
    assert all(len(timed.wall_seconds) == 4 for timed in found)


def test_rates_are_work_per_second_of_the_clock_that_was_asked_for():
    def spin():
        until = time.process_time() + 0.02
        while time.process_time() < until:
            pass

    [busy, idle] = measure(
        contest(
            Contender("busy", "ours", spin, 10),
            Contender("idle", "peer", lambda: time.sleep(0.02), 10),
        ),
        rounds=3,
        warm_up=False,
    )
    # On a busy machine the wall shows more; the processor hardly does.
    assert busy.rate("processor") == pytest.approx(10 / 0.02, rel=0.3)
    assert idle.seconds("wall") >= 0.02 > 10 * idle.seconds("processor")


def test_a_peer_that_is_not_there_is_a_row_that_says_so(monkeypatch):
    monkeypatch.setattr(peers, "versions", lambda packages: {})
    missing = peer("theirs", "pythae", lambda: pytest.fail("was built"), 1)
    assert missing.run is None
    [ours, theirs] = measure(contest(Contender("a", "ours", lambda: None, 1), missing), 1)
    assert theirs.wall_seconds == [] and len(ours.wall_seconds) == 1
    assert "pythae is not installed" in markdown([[ours, theirs]], "wall").splitlines()[3]


def test_the_ceiling_is_a_product_in_the_faster_precision(monkeypatch):
    seconds = {torch.float32: 2.0, torch.bfloat16: 1.0}
    monkeypatch.setattr(ceiling, "_seconds", seconds.__getitem__)
    monkeypatch.setattr(ceiling, "SIZE", 8)
    ceiling.fastest_precision.cache_clear()
    try:
        assert ceiling.fastest_precision(CPU) == torch.bfloat16
        found = ceiling_contender(flop_per_unit=16, device=CPU)
    finally:
        ceiling.fastest_precision.cache_clear()
    assert found.run().dtype == torch.bfloat16
    assert found.amount == 2 * 8**3 / 16
    assert "bfloat16" in found.name


def test_what_is_written_can_be_read(tmp_path):
    timed = measure(
        contest(
            Contender("ours", "ours", lambda: time.sleep(0.001), 2),
            Contender("most", "ceiling", lambda: time.sleep(0.001), 4),
        ),
        rounds=2,
    )
    write_report(tmp_path, [timed], describe_run("command", {"rounds": 2}), "wall")
    ours, most = csv.DictReader((tmp_path / "table.csv").open())
    assert float(ours["ours_is_faster_by"]) == 1
    ratio = float(ours["rate"]) / float(most["rate"])
    assert float(most["ours_is_faster_by"]) == pytest.approx(ratio, rel=1e-3)
    table = (tmp_path / "table.md").read_text().splitlines()
    assert len({line.count("|") for line in table}) == 1
    about = json.loads((tmp_path / "run.json").read_text())
    assert about["ratios_of"] == "wall seconds" and about["settings"] == {"rounds": 2}
    assert {"date", "commit", "processor", "threads", "torch", "packages"} <= about.keys()
