"""Trainings that exist, and trainings that were requested."""

from __future__ import annotations

import os
import shutil

import pytest

from semi_nnunet.evaluation.values import Model
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.trainings import (
    REQUESTED,
    find_jobs,
    find_stale_tables,
    list_metric_tables,
    read_requested_jobs,
    record_requested_jobs,
    require_trained,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.lock import held
from semi_nnunet.workflows.crossval import make_jobs
from tests.runs.jobs import BASE, OURS, TRAINERS, jobs_of, leave


def test_jobs_of_a_running_crossval_stay_recorded(folders, capsys):
    jobs = make_jobs(folders, "tiny", ["2d"], TRAINERS, ["0", "1"], 1)
    record_requested_jobs(folders, "tiny", jobs)
    with held(jobs[0].lock):
        record_requested_jobs(folders, "tiny", jobs[-1:])
        assert read_requested_jobs(folders, "tiny") == jobs
    record_requested_jobs(folders, "tiny", jobs[-1:])
    assert read_requested_jobs(folders, "tiny") == jobs[-1:]


def test_a_users_copies_are_no_trainings(folders):
    base, ours = jobs_of(folders)
    leave(base), leave(ours)
    shutil.copytree(base.folder, base.folder.with_name("fold_0_old"))
    shutil.copytree(base.folder.parent, base.folder.parent.with_name(f"{OURS}__tiny__2d__old"))
    assert find_jobs(folders, "tiny") == [base, ours]


def begun(folders, *models: str) -> None:
    """Make folders of trainings, by default of fold 0."""
    for model in models:
        (folders.results / (model if "/" in model else f"{model}/fold_0")).mkdir(parents=True)


def test_every_fold_and_seed_of_the_plans_is_found(empty):
    begun(empty, f"{OURS}__tiny__2d", f"{OURS}__tiny__2d/fold_all", f"{OURS}__tiny_seed2__2d")
    begun(empty, f"{BASE}__others__3d_fullres/fold_12")
    ours = [(OURS, "2d", "0", 0, "tiny"), (OURS, "2d", "all", 0, "tiny"),
            (OURS, "2d", "0", 2, "tiny_seed2")]  # fmt: skip
    other = (BASE, "3d_fullres", "12", 0, "others")
    assert find_jobs(empty, "tiny") == [Job(empty, *key) for key in ours]
    assert find_jobs(empty) == [Job(empty, *key) for key in (other, *ours)]
    assert find_jobs(empty, "tin") == []


def test_plans_named_like_seed_plans_are_found_by_their_name(empty):
    begun(empty, f"{OURS}__tiny_seed2__2d", f"{OURS}__tiny_seed2_seed1__2d")
    assert [job.seed for job in find_jobs(empty, "tiny_seed2")] == [0, 1]


def test_plans_that_nothing_was_trained_with_are_named(empty):
    require_trained(empty, "tiny")  # without any training, others report it
    begun(empty, f"{OURS}__tiny_seed1__2d")
    require_trained(empty, "tiny")
    with pytest.raises(UserError, match=r"plans 'tinny'.* did you mean 'tiny'"):
        require_trained(empty, "tinny")


def test_jobs_that_were_asked_for_are_the_same_when_read_again(empty):
    jobs = [Job(empty, OURS, "2d", fold, 1, "tiny_seed1") for fold in ("0", "all")]
    other_jobs = [Job(empty, BASE, "2d", "0", 0, "others")]
    assert read_requested_jobs(empty) == []
    record_requested_jobs(empty, "tiny", jobs)
    record_requested_jobs(empty, "others", other_jobs)
    assert read_requested_jobs(empty, "tiny") == jobs and read_requested_jobs(empty) == [
        *jobs,
        *other_jobs,
    ]
    record_requested_jobs(empty, "tiny", jobs[1:])
    assert read_requested_jobs(empty, "tiny") == jobs[1:]


def test_a_table_of_an_earlier_training_is_left_out_and_named(empty):
    new, old = (Job(empty, OURS, "2d", fold, 0, "tiny") for fold in ("0", "1"))
    for job, late in ((new, 0), (old, 1000)):
        job.validation.mkdir(parents=True)
        for name, seconds in (("metrics.csv", 0), ("summary.json", late)):
            (job.validation / name).touch()
            os.utime(job.validation / name, (1e9 + seconds, 1e9 + seconds))
    path = new.validation / "metrics.csv"
    assert list_metric_tables([new, old], "validation") == [(Model(OURS, "2d"), "0", 0, path)]
    (problem,) = find_stale_tables([new, old])
    assert problem.where == str(old.validation / "metrics.csv")
    assert f"validation of {old}" in problem.what
    assert "touch the file" in problem.fix
    assert list_metric_tables([new], "test") == []  # there are no labels


@pytest.mark.parametrize("content", ['{"tiny": [["trainer"]]}', '{"tiny": 5}', '{"tiny"', "[]"])
def test_a_damaged_list_of_jobs_is_to_be_removed(folders, content):
    path = folders.results / REQUESTED
    path.parent.mkdir(parents=True)
    path.write_text(content)
    with pytest.raises(UserError, match="remove it"):
        read_requested_jobs(folders)
