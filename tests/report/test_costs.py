"""Costs are means over the trainings of one machine, next to the metric of these trainings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.reporting.costs import (
    choose_time_unit,
    collect_costs,
    format_amount,
    format_training_time,
)
from semi_nnunet.reporting.wording import DASH
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.training.cost import COST_FILE
from semi_nnunet.util.files import write_json
from tests.report.gains import measured
from tests.report.results_tree import BASE, OTHER, OURS

HERE, THERE = "CPU 1, 1 thread", "GPU 2, CPU 3"


@pytest.fixture
def jobs(tmp_path) -> list[Job]:
    """Two seeds of three methods, as in ``measured``."""
    folders = Folders(*[tmp_path] * 3)
    return [
        Job(folders, trainer, "2d", "0", seed, f"plans_seed{seed}")
        for trainer in (BASE, OURS, OTHER)
        for seed in (0, 1)
    ]


def record(folder: Path, seconds: float, *machines: str, validated_on: str = "") -> None:
    """Write the record of a training: the same seconds on each machine, and for ten cases."""
    gpu = {HERE: None, THERE: seconds / 100}
    shares = [
        {"machine": machine, "seconds": seconds, "memory_gib": 2.0, "gpu_memory_gib": gpu[machine]}
        for machine in machines
    ]
    validation = {"machine": validated_on or machines[0], "seconds": seconds, "cases": 10}
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / COST_FILE, {"training": shares, "validation": validation})


@pytest.fixture
def results():
    return measured("test", **{BASE: 0, OURS: 0.03, OTHER: 0.01})


def test_the_cost_of_a_method_is_the_mean_of_its_trainings(jobs, results):
    for seconds, job in zip((60.0, 80.0, 200.0, 220.0, 90.0, 90.0), jobs, strict=True):
        record(job.folder, seconds, HERE)
    costs = collect_costs(jobs, results)
    (machine,) = costs.machines
    assert machine.machine == HERE and costs.not_recorded == ""
    assert [row.model for row in machine.rows] == results.models
    rows = {row.model.trainer: row for row in machine.rows}
    assert [rows[t].seconds for t in (BASE, OURS, OTHER)] == [70.0, 210.0, 90.0]
    assert [rows[t].case_seconds for t in (BASE, OURS, OTHER)] == [7.0, 21.0, 9.0]
    assert rows[OURS].texts == ("3 min 30 s", "2.00", DASH, "21.00") and rows[OURS].trainings == 2
    for trainer, row in rows.items():
        values = [v.value for v in results.values if v.model.trainer == trainer]
        assert row.value == pytest.approx(np.mean(values))
    assert [panel.title for panel in machine.panels] == [
        "Dice against training time, min", "Dice against memory, GiB",
        "Dice against time per case, s",
    ]  # fmt: skip
    assert all(panel.chart.count("<circle") == 3 for panel in machine.panels)
    assert machine.panels[0].legend == [(0, "Baseline"), (1, "FixMatch"), (2, "Mean Teacher")]


def test_every_machine_has_its_own_costs(jobs, results):
    for job in jobs:
        machine = THERE if (job.trainer, job.seed) in ((OURS, 1), (OTHER, 1)) else HERE
        record(job.folder, 100.0 * (1 + job.seed), machine)
    first, second = collect_costs(jobs, results).machines
    assert (first.machine, len(first.rows)) == (HERE, 3) and second.machine == THERE
    assert [row.trainings for row in first.rows] == [2, 1, 1]
    assert [(row.seconds, row.gpu_memory_gib) for row in second.rows] == [(200.0, 2.0)] * 2
    values = [v.value for v in results.values if (v.model.trainer, v.seed) == (OURS, 1)]
    assert second.rows[1].value == pytest.approx(np.mean(values))
    assert second.panels[1].title == "Dice against GPU memory, GiB"


def test_a_training_on_two_machines_has_its_own_entry(jobs, results):
    for job in jobs:
        record(job.folder, 100.0, HERE)
    record(jobs[2].folder, 100.0, THERE, HERE)
    _, costs = collect_costs(jobs, results).machines
    assert costs.machine == f"{THERE}, then {HERE}" and costs.panels == []
    (row,) = costs.rows
    assert row.seconds == 200.0 and format_amount(row.case_seconds) == DASH


def test_a_validation_on_another_machine_is_not_shown(jobs, results):
    record(jobs[0].folder, 100.0, HERE, validated_on=THERE)
    (machine,) = collect_costs(jobs[:1], results).machines
    assert machine.rows[0].texts[-1] == DASH and machine.rows[0].seconds == 100.0


def test_trainings_without_a_record_are_named_and_unmeasured_ones_not_shown(jobs, results):
    record(jobs[0].folder, 100.0, HERE)
    record(replace(jobs[0], fold="7").folder, 900.0, HERE)
    costs = collect_costs([*jobs, replace(jobs[0], fold="7")], results)
    assert [row.seconds for machine in costs.machines for row in machine.rows] == [100.0]
    methods = "Baseline (1 training), FixMatch (2 trainings) and Mean Teacher (2 trainings)"
    assert methods in costs.not_recorded


def test_times_have_the_precision_of_the_comparison():
    assert [format_training_time(s) for s in (12.34, 59.6, 200, 3600, 7499)] == [
        "12.3 s", "1 min 00 s", "3 min 20 s", "1 h 00 min", "2 h 04 min",
    ]  # fmt: skip
    assert format_training_time(float("nan")) == DASH
    assert [choose_time_unit(seconds)[0] for seconds in ([5.0], [59.0, 61.0], [4000.0], [])] == [
        "s", "min", "h", "s",
    ]  # fmt: skip
