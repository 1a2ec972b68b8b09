"""Predictions and measures whose inputs were edited by hand are made again."""

from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import SimpleITK as sitk

from semi_nnunet.evaluation.measuring import evaluate_folders
from semi_nnunet.raw.layout import DATASET_JSON, MEASURED_FROM, METRICS_FILE, PREDICTED_FROM
from semi_nnunet.runs.job import Job, list_test_inputs
from semi_nnunet.runs.trainings import find_stale_tables, list_metric_tables
from semi_nnunet.util.provenance import recorded
from tests.runs.jobs import BASE, fake_job, leave


def edit(path: Path) -> None:
    """Set some voxels of a file to another value, and keep everything else."""
    image = sitk.ReadImage(path)
    array = sitk.GetArrayFromImage(image)
    array[:2] = array.max() - array[:2]
    edited = sitk.GetImageFromArray(array)
    edited.CopyInformation(image)
    sitk.WriteImage(edited, path)


def measure(job: Job) -> None:
    """Measure the test cases as crossval does."""
    description = job.folders.preprocessed / DATASET_JSON
    evaluate_folders(job.test, job.folders.test_labels, dataset_json=description, processes=1)


@pytest.fixture
def job(folders, tmp_path) -> Job:
    """A job whose two test cases were predicted perfectly and measured."""
    raw = tmp_path / "raw"
    for name in ("imagesTs", "labelsTs"):
        shutil.copytree(folders.raw / name, raw / name)
        another = raw / name / f"zz{'_0000' if name == 'imagesTs' else ''}.nii.gz"
        shutil.copy(first(raw / name), another)
        edit(another)
    shutil.copy(folders.raw / DATASET_JSON, raw)
    job = fake_job(replace(folders, raw=raw), BASE)
    leave(job)
    shutil.copytree(raw / "labelsTs", job.test)
    with recorded(job.test / PREDICTED_FROM, list_test_inputs(job)):
        pass
    measure(job)
    return job


def first(folder: Path) -> Path:
    return min(folder.iterdir())


def test_nothing_is_done_again_if_nothing_changed(job):
    assert job.is_tested and not job.is_stale("test") and find_stale_tables([job]) == []
    assert len(list_metric_tables([job], "test")) == 1


def test_an_edited_reference_is_measured_again(job, tmp_path):
    edit(first(job.folders.test_labels))
    assert job.is_tested and job.is_stale("test")
    (problem,) = find_stale_tables([job])
    assert first(job.folders.test_labels).name.split(".")[0] in problem.what
    assert list_metric_tables([job], "test") == []
    measure(job)
    assert not job.is_stale("test")
    fresh = tmp_path / "fresh"
    description = job.folders.preprocessed / DATASET_JSON
    evaluate_folders(
        job.test, job.folders.test_labels, out=fresh, dataset_json=description, processes=1
    )
    assert (job.test / METRICS_FILE).read_text() == (fresh / METRICS_FILE).read_text()


def test_an_edited_prediction_is_measured_again(job):
    edit(min(job.test.glob("*.nii.gz")))
    assert job.is_stale("test")


def test_exchanged_test_images_are_predicted_again(job):
    one, two = sorted(job.folders.test_images.iterdir())[:2]
    aside = one.with_name("aside")
    one.rename(aside), two.rename(one), aside.rename(two)
    assert not job.is_tested and job.is_stale("test")
    command = next(words for words in job.commands("cpu", 1) if words[0] == "nnUNetv2_predict")
    assert "imagesTs" in str(command[command.index("-i") + 1])


def test_another_network_predicts_again_also_with_the_same_time(job):
    times = job.checkpoint.stat()
    job.checkpoint.write_bytes(b"another")
    os.utime(job.checkpoint, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert not job.is_tested


def test_results_of_an_earlier_version_are_kept(job):
    for name in (PREDICTED_FROM, MEASURED_FROM):
        (job.test / name).unlink()
    os.utime(job.checkpoint, (0, 0))  # older than the predictions
    assert job.is_tested and not job.is_stale("test")
