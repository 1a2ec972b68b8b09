"""A job knows which of its steps are done, and which commands are left."""

from __future__ import annotations

import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest
from nnunetv2.utilities.file_path_utilities import get_output_folder

from semi_nnunet.raw.folds import case_as_patient
from semi_nnunet.runs.job import Job, predict_test_cases, require_step
from semi_nnunet.runs.local import Resources, run_jobs
from semi_nnunet.runs.trainings import find_jobs
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from semi_nnunet.workflows.crossval import make_jobs
from tests.runs.jobs import OURS, TRAINERS, fake_job, jobs_of, leave


@pytest.mark.slow
def test_steps_one_at_a_time_and_a_case_that_came_later(folders, tmp_path):
    raw = tmp_path / "raw"
    for name in ("imagesTs", "labelsTs"):
        shutil.copytree(folders.raw / name, raw / name)
    copied = replace(folders, raw=raw)

    def run(*steps):
        (outcome,) = run_jobs(
            make_jobs(copied, "tiny", ["2d"], TRAINERS[:1], ["0"], 1, steps=steps),
            Resources("cpu", (), 1, 1),
        )
        return outcome

    with pytest.raises(UserError, match=r"none of .*trained"):
        run("predict")
    assert run("train").state == "done" and run("train").state == "done before"
    assert "needs its step 'predict' first" in run("evaluate").reason
    assert run("predict").state == "done"
    (job,) = find_jobs(copied, "tiny")
    test = job.tables()["test"]
    label = next((raw / "labelsTs").iterdir())
    shutil.copy(label, label.with_name(f"of_no_image_{label.name}"))  # it is no fault
    assert not test.exists() and run("evaluate").state == "done" and job.is_done
    cases = job.predicted_cases("test")
    for name in ("imagesTs", "labelsTs"):
        path = next((raw / name).iterdir())
        shutil.copy(path, path.with_name(f"later_{path.name}"))
    assert not job.is_tested and not replace(job, steps=("evaluate",)).is_done
    assert "needs its step 'predict' first" in run("evaluate").reason
    earlier = (job.folder / "checkpoint_final.pth").stat().st_mtime_ns
    assert run("train", "predict", "evaluate").state == "done"
    assert len(job.predicted_cases("test")) == len(cases) + 1 and test.is_file()
    assert earlier == (job.folder / "checkpoint_final.pth").stat().st_mtime_ns
    with pytest.raises(UserError, match="did you mean 'train'"):
        make_jobs(copied, "tiny", ["2d"], TRAINERS[:1], ["0"], 1, steps=["trian"])


def test_a_fold_trained_again_is_predicted_and_measured_again(folders, tmp_path):
    raw = tmp_path / "raw"
    for name in ("imagesTs/case_0000", "labelsTs/case"):
        (raw / f"{name}.nii.gz").parent.mkdir(parents=True)
        (raw / f"{name}.nii.gz").touch()
    _, ours = jobs_of(replace(folders, raw=raw))
    leave(ours)
    for name in ("test/case.nii.gz", "test/metrics.csv", "validation/a.nii.gz",
                 "validation/metrics.csv", "validation/summary.json"):  # fmt: skip
        (ours.folder / name).parent.mkdir(exist_ok=True)
        (ours.folder / name).write_text("x")
    assert ours.is_done
    later = time.time() + 3600
    os.utime(ours.validation / "summary.json", (later, later))
    assert [" ".join(map(str, c)).split(" -")[0] for c in ours.commands("cpu", 1)] == [
        "semi_nnunet evaluate"
    ]
    os.utime(ours.checkpoint, (later, later))
    assert not ours.is_tested and not ours.is_done
    os.utime(ours.test / "case.nii.gz", (later, later))
    assert ours.is_tested and not ours.is_done  # predicted again by hand, not measured
    for table in ours.tables().values():
        os.utime(table, (later, later))
    assert ours.is_done
    with pytest.raises(UserError, match="stage predict"):
        (ours.test / "case.nii.gz").unlink()
        make_jobs(ours.folders, "tiny", ["2d"], [OURS], ["0"], 1, steps=["train", "evaluate"])


def commands(job: Job) -> list[list[str]]:
    return [[str(word) for word in words] for words in job.commands("cpu", 2)]


def test_a_fold_lies_where_nnunet_puts_it(empty):
    job = Job(empty, OURS, "3d_fullres", "all", 1, "tiny_seed1")
    theirs = get_output_folder(empty.results.name, OURS, "tiny_seed1", "3d_fullres", "all")
    assert job.folder.parent.parent == empty.results
    assert job.folder.parts[-3:] == Path(theirs).parts[-3:]


def test_notes_of_a_crossval_are_no_training(empty):
    job = fake_job(empty, OURS)
    job.folder.mkdir(parents=True)
    job.log.touch(), job.lock.touch(), job.log.with_suffix(".failed").touch()
    assert not job.is_begun and not job.has_checkpoint
    (job.folder / "training_log_1.txt").touch()
    assert job.is_begun and not job.has_checkpoint
    (job.folder / "checkpoint_latest.pth").touch()
    assert job.has_checkpoint and not job.is_trained


def test_a_training_is_begun_continued_or_only_validated(empty):
    job = replace(fake_job(empty, OURS), steps=("train",))
    train = ["nnUNetv2_train", empty.results.name, "2d", "0", "-tr", OURS, "-p", "tiny",
              "-device", "cpu"]  # fmt: skip
    assert commands(job) == [train]
    assert commands(replace(job, npz=True)) == [[*train, "--npz"]]
    job.folder.mkdir(parents=True)
    (job.folder / "checkpoint_best.pth").touch()
    assert commands(job) == [[*train, "--c"]]
    job.checkpoint.write_text("x")
    assert commands(job) == [[*train, "--val"]]
    job.validation.mkdir()
    (job.validation / "summary.json").write_text("x")
    assert commands(job) == [] and job.is_done
    (job.validation / "a.nii.gz").write_text("x")
    assert commands(replace(job, npz=True)) == [[*train, "--npz", "--val"]]
    (job.validation / "a.npz").write_text("x")
    assert commands(replace(job, npz=True)) == []


def test_complete_predictions_replace_earlier_ones(empty):
    job = fake_job(empty, OURS)
    (empty.raw / "imagesTs").mkdir()
    (empty.raw / "imagesTs" / "a_0000.nii.gz").touch()
    job.test.mkdir(parents=True)
    (job.test / "old.nii.gz").write_text("x")
    job.checkpoint.write_text("x")
    killed = job.test.with_name(".test.tmp") / "removed.nii.gz"  # of a case that is gone by now
    killed.parent.mkdir()
    killed.write_text("x")
    steps = predict_test_cases(job, "cpu", 2)
    words = [str(word) for word in next(steps)]
    aside = Path(words[words.index("-o") + 1])
    assert words[0] == "nnUNetv2_predict" and words[words.index("-f") + 1] == "0"
    assert aside.parent == job.folder and aside != job.test
    aside.mkdir()
    (aside / "a.nii.gz").write_text("x")
    assert (job.test / "old.nii.gz").is_file()  # as long as nnU-Net predicts
    assert list(steps) == [] and not aside.exists()
    assert job.predicted_cases("test") == {"a"} and job.is_tested


def test_the_training_cases_of_fold_all_are_not_measured(empty):
    job = fake_job(empty, OURS)
    assert set(job.tables()) == {"validation"} and replace(job, fold="all").tables() == {}
    (empty.raw / "labelsTs").mkdir()
    (empty.raw / "labelsTs" / "a.nii.gz").touch()
    assert set(job.tables()) == {"validation", "test"}
    assert replace(job, fold="all").list_unmeasured() == ["test"]


def test_a_step_that_another_needs_is_named(empty):
    require_step(fake_job(empty, OURS), "train", done=True)
    with pytest.raises(UserError, match=rf"{OURS} 2d fold 0 seed 0 needs its step 'train' first"):
        require_step(fake_job(empty, OURS), "train", done=False)
    with pytest.raises(UserError, match="Fix: crossval --stages train"):
        commands(replace(fake_job(empty, OURS), steps=("evaluate",)))


def test_a_file_that_is_being_written_is_no_prediction(empty):
    job = fake_job(empty, OURS)
    job.test.mkdir(parents=True)
    for name in ("a.nii.gz", ".b.nii.gz", "c.npz", "metrics.csv"):
        (job.test / name).write_text("x")
    assert job.predicted_cases("test") == {"a"} and job.predicted_cases("validation") == set()


def test_unlabelled_images_of_patients_whom_a_fold_validates_on_are_left_out(folders, tmp_path):
    copy = tmp_path / "copy" / folders.preprocessed.name
    shutil.copytree(folders.preprocessed, copy)
    job = fake_job(replace(folders, preprocessed=copy), OURS)
    every = job.unlabelled_cases(case_as_patient)
    assert len(every) == 4 and every == sorted(every)
    write_json(copy / "splits_final.json", [{"train": [], "val": ["somebody"]}])
    met = {every[1]: "somebody"}
    assert job.unlabelled_cases(lambda case: met.get(case, case)) == [every[0], *every[2:]]
    write_json(copy / "semi_twins.json", {"groups": [["somebody", every[2]]]})
    assert job.unlabelled_cases(case_as_patient) == [*every[:2], every[3]]
    of_all = replace(job, fold="all")
    assert of_all.unlabelled_cases(lambda case: met.get(case, case)) == every


def test_stages_and_teachers_are_jobs_of_the_same_fold_and_seed(cascade):
    second = Job(cascade, "SemiDistillationTrainer", "3d_cascade_fullres", "2", 1, "tiny")
    assert second.previous_stage == replace(second, configuration="3d_lowres")
    assert second.previous_stage.previous_stage is None and second.teacher == replace(
        second, trainer=OURS
    )
    assert second.teacher.teacher is None
    assert replace(second, plans="gone").previous_stage is None


def test_files_of_no_bytes_are_not_done(folders):
    """A crash of the machine may leave the names of files without their content."""
    (job,) = make_jobs(folders, "tiny", ["2d"], [OURS], ["0"], 1)
    leave(job)
    (case,) = folders.test_cases()
    for folder in (job.validation, job.test):
        folder.mkdir()
        for name in (f"{case}.nii.gz", "summary.json", "metrics.csv"):
            (folder / name).write_text("x")
    assert job.is_done
    for path, question in (
        (job.validation / f"{case}.nii.gz", "is_validated"),
        (job.validation / "summary.json", "is_validated"),
        (job.validation / "metrics.csv", "is_measured"),
        (job.test / f"{case}.nii.gz", "is_tested"),
        (job.test / "metrics.csv", "is_measured"),
        (job.checkpoint, "is_trained"),
    ):
        path.write_bytes(b"")
        assert not getattr(job, question) and not job.is_done, path
        path.write_text("x")
    job.checkpoint.write_bytes(b"")
    with pytest.raises(UserError, match=r"checkpoint_final.pth: .* got 0 bytes.* remove it"):
        make_jobs(folders, "tiny", ["2d"], [OURS], ["0"], 1)
