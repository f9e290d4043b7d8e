"""The progress bar on a terminal of 80 columns."""

import io
import sys

import pytest

from loopedge.trainer.progress import bar_on_terminal


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bar_count_and_time_left_stay_on_a_narrow_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("NO_COLOR", "1")
    with bar_on_terminal(100_000, "sequence_accuracy", done=10_000) as bar:
        assert bar is not None
        bar.evaluated(10_000, {"accuracy": 0.123, "sequence_accuracy": 0.012345, "other": 7.0})
        bar.stepped(12_345, loss=2.34567, tokens_per_second=1_234_567, seconds_left=1000)
    lines = [
        line for line in terminal.getvalue().replace("\r", "\n").splitlines() if "loss" in line
    ]
    assert lines
    assert "━" in lines[-1]
    assert "12345/100000" in lines[-1].replace(" ", "")
    assert "-:--:--" in lines[-1]
    assert "loss 2.3457, sequence_acc" in lines[-1]
    assert "other" not in terminal.getvalue()
