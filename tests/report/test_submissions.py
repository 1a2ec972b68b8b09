"""What submissions cost stands beside what they reach."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.report.submissions import read_submissions
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json

MEAN = {"seconds": 12.9, "cpu_area": 300.0, "own_memory": 2052.0, "dice": 0.777, "nsd": 0.82}


def measured(folder: Path, name: str, mean: dict[str, Any]) -> Path:
    out = folder / name
    out.mkdir()
    cases = {"a": mean, "b": mean}
    write_json(out / "efficiency.json", {"command": f"run {name}", "mean": mean, "cases": cases})
    return out


def test_a_row_for_each_and_charts_of_what_several_have(tmp_path: Path) -> None:
    slow = measured(tmp_path, "slow", MEAN)
    fast = measured(tmp_path, "fast", {**MEAN, "seconds": 1.25, "gpu_area": 7.0})
    found = read_submissions([slow, fast])
    assert found is not None
    assert [(row.name, row.cases, row.command) for row in found.rows] == [
        ("slow", 2, "run slow"), ("fast", 2, "run fast"),
    ]  # fmt: skip
    assert found.rows[1].of("seconds") == 1.25 and math.isnan(found.rows[0].of("gpu_area"))
    texts = dict(zip(found.headings, found.rows[0].texts, strict=True))
    assert texts["Dice"] == "0.777" and texts["time, s"] == "12.9"
    assert texts["GPU area, MiB s"] == "\N{EN DASH}" and texts["memory, MiB"] == "2052"
    titles = [panel.title for panel in found.panels]
    assert titles == [
        "Dice against time, s", "Dice against CPU area, % s", "Dice against memory, MiB",
    ]  # fmt: skip
    assert all(panel.chart.count("<circle") == 2 for panel in found.panels)


def test_one_is_no_chart_and_none_is_nothing(tmp_path: Path) -> None:
    found = read_submissions([measured(tmp_path, "one", MEAN)])
    assert found is not None and not found.panels
    assert read_submissions([]) is None


def test_folders_without_a_finished_measurement_are_all_named(tmp_path: Path) -> None:
    begun = measured(tmp_path, "begun", {})
    with pytest.raises(UserError) as refused:
        read_submissions([begun, tmp_path / "absent", measured(tmp_path, "done", MEAN)])
    assert "begun: must hold efficiency.json" in str(refused.value)
    assert "absent: must hold" in str(refused.value) and "done: " not in str(refused.value)
