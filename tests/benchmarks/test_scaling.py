"""What more processes gain: medians over the fewest, and no round that ended is lost."""

import json

import pandas as pd
import pytest

from benchmarks.scaling import __main__ as scaling


def test_gains_are_over_the_fewest_processes():
    table = scaling.speedups(
        {("prior", 2): [10.0, 30.0, 20.0], ("prior", 1): [12.5], ("first stage", 1): [7.0]}
    )
    rows = {(row.training, row.processes): row for row in table.itertuples()}
    assert rows["prior", 2].speedup == pytest.approx(1.6)
    assert rows["prior", 2].efficiency == pytest.approx(0.8)
    assert (rows["prior", 2].lowest, rows["prior", 2].highest, rows["prior", 2].rounds) == (
        10,
        30,
        3,
    )
    assert rows["prior", 1].speedup == rows["first stage", 1].speedup == 1


def test_a_run_cut_short_keeps_the_rounds_it_has(tmp_path, monkeypatch):
    rates = iter([100.0, 150.0, 10.0, 19.0, 100.0])
    monkeypatch.setattr(scaling, "_images_per_second", lambda *_: next(rates))
    with pytest.raises(StopIteration):
        scaling.main(["--output", str(tmp_path)])
    table = pd.read_csv(tmp_path / "table.csv")
    assert table.speedup.tolist() == [1.0, 1.5, 1.0, 1.9] and set(table.rounds) == {1}
    assert (
        "| prior | 2 | 19.0 | 19.0 to 19.0 | 1.90 | 0.95 |" in (tmp_path / "table.md").read_text()
    )
    assert json.loads((tmp_path / "run.json").read_text())["threads"] == 1
