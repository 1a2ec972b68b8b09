"""Progress is written and read back by one class; estimates use only the last units."""

from __future__ import annotations

import sys

import pytest

from semi_nnunet.util.progress import CaseLines, Progress, TimeLeft, readable_time, with_progress


@pytest.mark.parametrize("unit", ["epoch", "case"])
def test_a_printed_line_is_read_back(unit: str) -> None:
    progress = Progress(3, 40, unit, "5 min")
    assert Progress.parse(f"2026-11-20 10:00:00.3: {progress} \n") == progress
    assert Progress.parse("3 of 40 trainings") is None


def test_the_estimate_forgets_early_units() -> None:
    left = TimeLeft()
    left.after(1000.0, 5)
    for _ in range(10):
        estimate = left.after(2.0, 5)
    assert estimate == "10 s"


def test_times_are_readable() -> None:
    assert [readable_time(s) for s in (89, 90, 5399, 5400)] == ["89 s", "2 min", "90 min", "1.5 h"]


def test_progress_is_logged_after_every_case(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(with_progress("abc", 3)) == ["a", "b", "c"]
    lines = [Progress.parse(line) for line in capsys.readouterr().out.splitlines()]
    assert [line and line.done for line in lines] == [1, 2, 3] and lines[-1].total == 3


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_line_for_each_case_is_shown_on_a_terminal_only(is_terminal, monkeypatch, capsys) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: is_terminal, raising=False)
    lines = CaseLines(2)
    for case in ("first", "second"):
        lines.finish(case)
    shown = capsys.readouterr().out.splitlines()
    assert [line.split(":")[0] for line in shown] == (["first", "second"] if is_terminal else [])
