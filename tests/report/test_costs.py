"""Costs are means over the trainings of one machine, beside what these trainings reached."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.report.costs import (
    choose_time_unit,
    collect_costs,
    format_amount,
    format_training_time,
)
from semi_nnunet.report.wording import DASH
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.training.cost import COST_FILE
from semi_nnunet.util.files import write_json
from tests.report.gains import measured
from tests.report.results_tree import BASE, OTHER, OURS

HERE, THERE = "CPU 1, 1 thread", "GPU 2, CPU 3"


@pytest.fixture
def jobs(tmp_path) -> list[Job]:
    """Two seeds of three methods, as ``measured`` has them."""
    folders = Folders(*[tmp_path] * 3)
    return [
        Job(folders, trainer, "2d", "0", seed, f"plans_seed{seed}")
        for trainer in (BASE, OURS, OTHER)
        for seed in (0, 1)
    ]


def record(folder: Path, seconds: float, *machines: str, validated_on: str = "") -> None:
    """What a training leaves: as many seconds on each machine, and as many for ten cases."""
    gpu = {HERE: None, THERE: seconds / 100}
    shares = [
        {"machine": one, "seconds": seconds, "memory_gib": 2.0, "gpu_memory_gib": gpu[one]}
        for one in machines
    ]
    where = {"machine": validated_on or machines[0], "seconds": seconds, "cases": 10}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / COST_FILE, {"training": shares, "validation": where})


@pytest.fixture
def found():
    return measured("test", **{BASE: 0, OURS: 0.03, OTHER: 0.01})


def test_a_method_costs_the_mean_of_its_trainings_beside_what_they_reach(jobs, found):
    for seconds, job in zip((60.0, 80.0, 200.0, 220.0, 90.0, 90.0), jobs, strict=True):
        record(job.folder, seconds, HERE)
    costs = collect_costs(jobs, found)
    (machine,) = costs.machines
    assert machine.machine == HERE and costs.not_recorded == ""
    assert [row.model for row in machine.rows] == found.models
    rows = {row.model.trainer: row for row in machine.rows}
    assert [rows[t].seconds for t in (BASE, OURS, OTHER)] == [70.0, 210.0, 90.0]
    assert [rows[t].case_seconds for t in (BASE, OURS, OTHER)] == [7.0, 21.0, 9.0]
    assert rows[OURS].texts == ("3 min 30 s", "2.00", DASH, "21.00") and rows[OURS].trainings == 2
    for trainer, row in rows.items():
        values = [v.value for v in found.values if v.model.trainer == trainer]
        assert row.value == pytest.approx(np.mean(values))
    assert [panel.title for panel in machine.panels] == [
        "Dice against the time of a training, min", "Dice against memory, GiB",
        "Dice against the time of a case, s",
    ]  # fmt: skip
    assert all(panel.chart.count("<circle") == 3 for panel in machine.panels)
    assert machine.panels[0].legend == [(0, "Baseline"), (1, "FixMatch"), (2, "MeanTeacher")]


def test_every_machine_is_told_on_its_own(jobs, found):
    for job in jobs:
        one = THERE if (job.trainer, job.seed) in ((OURS, 1), (OTHER, 1)) else HERE
        record(job.folder, 100.0 * (1 + job.seed), one)
    here, there = collect_costs(jobs, found).machines
    assert (here.machine, len(here.rows)) == (HERE, 3) and there.machine == THERE
    assert [row.trainings for row in here.rows] == [2, 1, 1]
    assert [(row.seconds, row.gpu_memory_gib) for row in there.rows] == [(200.0, 2.0)] * 2
    values = [v.value for v in found.values if (v.model.trainer, v.seed) == (OURS, 1)]
    assert there.rows[1].value == pytest.approx(np.mean(values))
    assert there.panels[1].title == "Dice against GPU memory, GiB"


def test_a_training_on_two_machines_is_compared_with_none(jobs, found):
    for job in jobs:
        record(job.folder, 100.0, HERE)
    record(jobs[2].folder, 100.0, THERE, HERE)
    _, both = collect_costs(jobs, found).machines
    assert both.machine == f"{THERE}, then {HERE}" and both.panels == []
    (row,) = both.rows
    assert row.seconds == 200.0 and format_amount(row.case_seconds) == DASH


def test_a_validation_on_another_machine_is_not_told(jobs, found):
    record(jobs[0].folder, 100.0, HERE, validated_on=THERE)
    (machine,) = collect_costs(jobs[:1], found).machines
    assert machine.rows[0].texts[-1] == DASH and machine.rows[0].seconds == 100.0


def test_what_predates_the_record_is_said_and_what_was_not_measured_is_not_shown(jobs, found):
    record(jobs[0].folder, 100.0, HERE)
    record(replace(jobs[0], fold="7").folder, 900.0, HERE)
    costs = collect_costs([*jobs, replace(jobs[0], fold="7")], found)
    assert [row.seconds for machine in costs.machines for row in machine.rows] == [100.0]
    assert costs.not_recorded.startswith(
        "Not recorded: Baseline (1 training), FixMatch (2 trainings) and MeanTeacher (2 trainings)."
    )


def test_times_are_written_as_exactly_as_they_are_compared():
    assert [format_training_time(s) for s in (12.34, 59.6, 200, 3600, 7499)] == [
        "12.3 s", "1 min 00 s", "3 min 20 s", "1 h 00 min", "2 h 04 min",
    ]  # fmt: skip
    assert format_training_time(float("nan")) == DASH
    assert [choose_time_unit(seconds)[0] for seconds in ([5.0], [59.0, 61.0], [4000.0], [])] == [
        "s", "min", "h", "s",
    ]  # fmt: skip
