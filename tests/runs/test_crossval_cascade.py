"""A cascade in one command: the second stage after all first stages, with all their predictions."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import blosc2
import numpy as np
import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.job import Job
from semi_nnunet.runs.launching import JobWork
from semi_nnunet.workflows.crossval import find_dependencies, make_jobs
from tests.runs.jobs import STAGES, TRAINERS


@pytest.fixture
def folders(cascade) -> Folders:
    return cascade


def dependency_levels(jobs: list[Job]) -> list[list[int]]:
    work = JobWork([], jobs, range(len(jobs)), Path(), find_dependencies(jobs))
    return work.group_by_dependencies()


def labels_in(folder: Path) -> dict[str, np.ndarray]:
    return {path.name: blosc2.open(str(path))[:] for path in folder.glob("*.b2nd")}


def test_second_stages_wait_for_all_first_stages(folders):
    jobs = make_jobs(folders, "tiny", [*STAGES[::-1], "3d_fullres"], TRAINERS, ["all"], 2)
    first, second = ([jobs[index] for index in wave] for wave in dependency_levels(jobs))
    assert {job.configuration for job in first} == {"3d_lowres", "3d_fullres"}
    assert {job.configuration for job in second} == {"3d_cascade_fullres"}
    assert len(first) == 8 and len(second) == 4
    assert all(job.previous_stage in first for job in second)


def test_a_second_stage_needs_the_first_of_every_fold_of_its_own_training(folders):
    jobs = make_jobs(folders, "tiny", STAGES, TRAINERS, [*"01234"], 2)
    for job, dependencies in find_dependencies(jobs).items():
        stages = [replace(job, configuration=STAGES[0], fold=fold) for fold in "01234"]
        assert dependencies == ([] if job.configuration == STAGES[0] else stages)


def test_a_trainer_comes_after_its_teacher(folders):
    trainers = ["SemiDistillationTrainer", "SemiMeanTeacherTrainer"]
    jobs = make_jobs(folders, "tiny", ["3d_lowres"], trainers, ["all"], 2)
    names = [[jobs[index].trainer for index in wave] for wave in dependency_levels(jobs)]
    assert names == [[trainers[1]] * 2, [trainers[0]] * 2]
    alone = make_jobs(folders, "tiny", ["3d_lowres"], trainers[:1], ["all"], 2)
    assert dependency_levels(alone) == [
        [0, 1]
    ]  # it was trained before, or the settings name another


def test_results_without_their_plans_are_listed(folders, capsys):
    jobs = make_jobs(folders, "tiny", ["3d_lowres"], TRAINERS[:1], ["all"], 1)
    jobs[0].validation.mkdir(parents=True)
    (folders.preprocessed / "tiny.json").unlink()
    assert main(["status", "-d", folders.raw.name, "-p", "tiny"]) == 0
    assert "SemiBaselineTrainer 3d_lowres fold all" in capsys.readouterr().out


@pytest.mark.slow
def test_both_stages_in_one_command_and_again_after_a_prediction_was_lost(folders, capsys):
    words = ["crossval", "-d", folders.raw.name, "-p", "tiny", "-f", "all", "--device", "cpu"]
    words += ["-c", *STAGES, "-tr", "SemiMeanTeacherTrainer"]
    assert main(words) == 0
    assert "2 jobs, 0 done before" in capsys.readouterr().out
    first, second = make_jobs(folders, "tiny", STAGES, TRAINERS[1:], ["all"], 1)
    assert first.is_done and second.is_done and second.tables()["test"].is_file()
    assert first.predicted_cases("test") == second.predicted_cases("test") != set()

    stored = first.folder.parent / "predicted_next_stage" / "3d_cascade_fullres"
    predictions = labels_in(stored)
    for name in (min(predictions), max(predictions)):
        (stored / name).unlink()  # killed before it was written
    assert len(first.list_missing_stage_predictions()) == 2 and not first.is_done
    assert main(words) == 0
    again = labels_in(stored)
    assert again.keys() == predictions.keys()
    assert all(np.array_equal(again[name], predictions[name]) for name in predictions)
    assert main(words) == 0
    assert "2 done before" in capsys.readouterr().out
