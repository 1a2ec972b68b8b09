"""Progress is written and read back by one class; estimates look at the last units alone."""

from __future__ import annotations

import pytest

from semi_nnunet.util.progress import Progress, TimeLeft, readable_time, with_progress


@pytest.mark.parametrize("unit", ["epoch", "case"])
def test_what_is_printed_is_read_back(unit: str) -> None:
    progress = Progress(3, 40, unit, "5 min")
    assert Progress.parse(f"2026-11-20 10:00:00.3: {progress} \n") == progress
    assert Progress.parse("3 of 40 trainings") is None


def test_the_estimate_forgets_what_was_long_ago() -> None:
    left = TimeLeft()
    left.after(1000.0, 5)
    for _ in range(10):
        told = left.after(2.0, 5)
    assert told == "10 s"


def test_times_are_readable() -> None:
    assert [readable_time(s) for s in (89, 90, 5399, 5400)] == ["89 s", "2 min", "90 min", "1.5 h"]


def test_every_case_is_told_and_passed_on(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(with_progress("abc", 3)) == ["a", "b", "c"]
    printed = [Progress.parse(line) for line in capsys.readouterr().out.splitlines()]
    assert [one and one.done for one in printed] == [1, 2, 3] and printed[-1].total == 3
