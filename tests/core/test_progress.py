"""Progress tells the truth in a log and on a terminal, and only as often as asked."""

import io
import re
import sys

import pytest

from stages.core.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_gets_lines_with_count_and_figures(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(100, 40, "step", "train", pause=0.0) as shown:
        shown.advance(20, loss=0.12345)
    error = capsys.readouterr().err
    assert "\r" not in error
    assert re.fullmatch(r"train: 60/100 step \[.*loss=0\.1235?\]\n", error)


def test_a_log_is_not_flooded(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(1000, 0, "step", "train", pause=3600.0) as shown:
        for _ in range(1000):
            shown.advance(1)
    assert capsys.readouterr().err == ""


def test_resumed_units_are_no_speed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = iter([0.0, 10.0, 10.0, 10.0])
    monkeypatch.setattr("stages.core.progress.time.monotonic", lambda: next(clock))
    with progress(1000, 900, "step", "train", pause=1.0) as shown:
        shown.advance(50)
    # 50 steps in 10 s, and not 950; 50 more take another 10 s.
    error = capsys.readouterr().err
    assert "950/1000" in error
    assert "5.00step/s" in error
    assert "00:10<00:10" in error


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with progress(10, 0, "image", "encode") as shown:
        shown.advance(10)
    assert "\r" in terminal.getvalue()
    assert "encode" in terminal.getvalue()
