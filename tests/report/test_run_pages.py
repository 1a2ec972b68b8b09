"""The curves of every training, and its filterings."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from semi_nnunet.reporting.run_pages import (
    MOST_UNCERTAIN,
    TRAINING_DICE,
    build_run,
    draw_dice_panels,
    read_pools,
    summarise_training,
)
from semi_nnunet.reporting.wording import name_method
from semi_nnunet.runs.folders import Folders, find_folders
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.trainings import find_jobs
from semi_nnunet.training.filtering import write_filter_table
from semi_nnunet.training.history import History
from tests.report.results_tree import BASE, OURS


def test_every_method_has_a_panel_of_its_trainings_over_those_of_the_baseline(tree, monkeypatch):
    tree.set_paths(monkeypatch)
    jobs = find_jobs(find_folders("7"), "nnUNetPlans")
    base_jobs = [job for job in jobs if job.trainer == BASE]
    for panel in draw_dice_panels(jobs, BASE):
        name = name_method(BASE), panel.title
        assert panel.legend == list(enumerate(name)) and panel.title != name[0]
        runs = [job for job in jobs if name_method(job.trainer) == panel.title]
        assert panel.chart.count("var(--series-1)") == len(runs) > 0
        assert panel.chart.count("var(--series-0)") == len(base_jobs) > 0
    (only,) = draw_dice_panels(base_jobs, BASE)
    assert only.legend == [(1, name_method(BASE))]
    assert draw_dice_panels([], BASE) == []


@pytest.fixture
def job(tmp_path) -> Job:
    training = Job(Folders(*[tmp_path] * 3), OURS, "2d", "0", 1, "nnUNetPlans_seed1")
    training.folder.mkdir(parents=True)
    return training


def test_a_summary_holds_epochs_time_and_the_last_dice():
    rows = [{"epoch": n, "seconds": 90.0, "dice/deployed": n / 10} for n in range(4)]
    assert (
        summarise_training(History(rows), "0") == "4 epochs, 6 min, Dice on validation patches 30.0"
    )
    assert summarise_training(History([{"epoch": 0}]), "0") == "1 epoch"


def test_every_curve_of_a_training_is_in_one_panel_with_its_name(job):
    rows = [
        {"epoch": n, "loss/supervised": 1.0, "dice/deployed": 0.1, "dice/student": 0.2}
        for n in range(3)
    ]
    History(rows).write_csv(job.folder / "semi_history.csv")
    run = build_run(job)
    assert run.name == "Mean Teacher 2d, fold 0, seed 1" and run.summary.startswith("3 epochs")
    legends = {panel.title: [name for _, name in panel.legend] for panel in run.panels}
    assert legends == {
        "supervised loss": ["supervised"],
        "Dice on validation patches": ["deployed", "student"],
    }
    for panel in run.panels:
        colours = [f"var(--series-{number})" for number, _ in panel.legend]
        assert all(panel.chart.count(colour) == 1 for colour in colours)
        assert f"{panel.title} of {run.name}" in panel.chart


def test_dice_on_training_cases_is_labelled_as_such(job):
    rows = [{"epoch": n, "dice/deployed": 0.9} for n in range(3)]
    every = replace(job, fold="all")
    for training in (job, every):
        training.folder.mkdir(parents=True, exist_ok=True)
        History(rows).write_csv(training.folder / "semi_history.csv")
    run = build_run(every)
    assert TRAINING_DICE in run.summary and "validation" not in run.summary
    assert [panel.title for panel in run.panels] == [TRAINING_DICE]
    (panel,) = draw_dice_panels([job, every], BASE)
    assert panel.legend == [(1, "Mean Teacher"), (3, "Mean Teacher, training cases")]
    (only_panel,) = draw_dice_panels([every], BASE)
    assert only_panel.legend == [(3, "Mean Teacher, training cases")]


def test_a_training_without_a_history_is_reported(job):
    run = build_run(job)
    assert run.panels == [] and "no semi_history.csv" in run.summary


def filtered(job: Job, epoch: int, cases: int, kept_count: int) -> Path:
    path = job.folder / f"filter_epoch_{epoch}.csv"
    scores = {f"case_{n}": n / cases for n in range(cases)}
    write_filter_table(path, scores, [f"case_{n}" for n in range(kept_count)])
    return path


def test_filterings_come_in_the_order_of_their_epochs(job):
    for epoch in (5, 100, 20):
        filtered(job, epoch, cases=15, kept_count=10)
    names = [pool.name for pool in read_pools(job)]
    assert names == [f"Mean Teacher 2d, fold 0, seed 1, epoch {epoch}" for epoch in (5, 20, 100)]


def test_the_most_uncertain_images_of_a_filtering_come_first(job):
    path = filtered(job, 5, cases=15, kept_count=10)
    (pool,) = read_pools(job)
    assert pool.summary == "10 of 15 unlabelled images kept"
    assert [case for case, _, _ in pool.most_uncertain] == [
        f"case_{n}" for n in range(14, 14 - MOST_UNCERTAIN, -1)
    ]
    assert [is_kept for _, _, is_kept in pool.most_uncertain] == [False] * 5 + [True] * 5
    assert "10 kept and 5 dropped" in pool.chart
    path.write_text(path.read_text().replace("score", "uncertainty"))  # as files once were
    assert read_pools(job) == [pool]


def test_a_filtering_of_no_image_has_no_chart(job):
    filtered(job, 5, cases=0, kept_count=0)
    (pool,) = read_pools(job)
    assert pool.summary == "0 of 0 unlabelled images kept" and pool.chart == ""
