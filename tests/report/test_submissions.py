"""Costs of submissions are read and drawn against their quality."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.reporting.submissions import read_submissions
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json

MEAN = {"seconds": 12.9, "cpu_area": 300.0, "own_memory": 2052.0, "dice": 0.777, "nsd": 0.82}


def measured(folder: Path, name: str, mean: dict[str, Any]) -> Path:
    out = folder / name
    out.mkdir()
    cases = {"a": mean, "b": mean}
    write_json(out / "efficiency.json", {"command": f"run {name}", "mean": mean, "cases": cases})
    return out


def test_each_submission_has_a_row_and_shared_costs_have_charts(tmp_path: Path) -> None:
    slow = measured(tmp_path, "slow", MEAN)
    fast = measured(tmp_path, "fast", {**MEAN, "seconds": 1.25, "gpu_area": 7.0})
    submissions = read_submissions([slow, fast])
    assert submissions is not None
    assert [(row.name, row.cases, row.command) for row in submissions.rows] == [
        ("slow", 2, "run slow"), ("fast", 2, "run fast"),
    ]  # fmt: skip
    assert submissions.rows[1].get_mean("seconds") == 1.25 and math.isnan(
        submissions.rows[0].get_mean("gpu_area")
    )
    texts = dict(zip(submissions.headings, submissions.rows[0].texts, strict=True))
    assert texts["Dice"] == "0.777" and texts["time, s"] == "12.9"
    assert texts["GPU area, MiB s"] == "\N{EN DASH}" and texts["memory, MiB"] == "2052"
    titles = [panel.title for panel in submissions.panels]
    assert titles == [
        "Dice against time, s", "Dice against CPU area, % s", "Dice against memory, MiB",
    ]  # fmt: skip
    assert all(panel.chart.count("<circle") == 2 for panel in submissions.panels)


def test_one_submission_has_no_chart_and_no_folders_give_none(tmp_path: Path) -> None:
    submissions = read_submissions([measured(tmp_path, "one", MEAN)])
    assert submissions is not None and not submissions.panels
    assert read_submissions([]) is None


def test_all_folders_without_a_finished_measurement_are_reported(tmp_path: Path) -> None:
    begun = measured(tmp_path, "begun", {})
    with pytest.raises(UserError) as caught:
        read_submissions([begun, tmp_path / "absent", measured(tmp_path, "done", MEAN)])
    assert "begun: must hold efficiency.json" in str(caught.value)
    assert "absent: must hold" in str(caught.value) and "done: " not in str(caught.value)
