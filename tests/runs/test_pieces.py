"""Trainings of data whose foreground is one piece: what comparisons say, and what models know."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.deploy.trained import TrainedModel
from semi_nnunet.evaluation.measuring import evaluate_folders
from semi_nnunet.evaluation.pieces import ONLY_LARGEST, REFERENCES, keep_largest_component
from semi_nnunet.raw.pieces import find_one_piece_problems
from semi_nnunet.runs.folders import Folders
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.workflows.compare import compare_trainings
from semi_nnunet.workflows.crossval import update_models
from semi_nnunet.workflows.pieces import describe_pieces, keep_largest_pieces
from tests.evaluation.folders import hearts
from tests.runs.jobs import BASE, OURS, fake_job, leave

NAME = "Dataset777_Hearts"
PLANS = {
    "dataset_name": NAME, "plans_name": "tiny", "image_reader_writer": "SimpleITKIO",
    "transpose_forward": [0, 1, 2], "configurations": {"2d": {"data_identifier": "none"}},
}  # fmt: skip


@pytest.fixture
def hearts_folders(tmp_path, monkeypatch):
    """Measured trainings of the baseline, which predicts one piece, and of another method."""
    roots = {name: tmp_path / name / NAME for name in ("raw", "preprocessed", "results")}
    for name, root in roots.items():
        monkeypatch.setenv(f"nnUNet_{name}", str(root.parent))
        root.mkdir(parents=True)
    folders = Folders(*roots.values())
    predictions, references = hearts(tmp_path / "files")
    shutil.copytree(references, folders.references)
    description = references.parent / "dataset.json"
    for root in (folders.raw, folders.preprocessed):
        shutil.copy(description, root)
    for trainer in (BASE, OURS):
        job = fake_job(folders, trainer)
        leave(job, epochs=2)
        write_json(job.folder.parent / "plans.json", PLANS)
        shutil.copy(description, job.folder.parent)
        shutil.copytree(references if trainer == BASE else predictions, job.validation)
        measure(job)
    return folders


def measure(job):
    evaluate_folders(
        job.validation, job.folders.references,
        dataset_json=job.folders.preprocessed / "dataset.json", processes=1,
    )  # fmt: skip


def test_compare_says_what_the_largest_pieces_would_change(hearts_folders):
    jobs = [fake_job(hearts_folders, trainer) for trainer in (BASE, OURS)]
    (sentence,) = describe_pieces(jobs, "validation")
    assert "0 of 3" in sentence and "2 of 3" in sentence
    assert sentence in compare_trainings(NAME, plans="tiny")
    path = hearts_folders.preprocessed / "dataset.json"
    write_json(path, {**read_json(path), "one_piece": True})
    assert all(job.is_stale("validation") for job in jobs)
    for job in jobs:
        measure(job)
    assert not any(job.is_stale("validation") for job in jobs)
    (note,) = describe_pieces(jobs, "validation")
    assert ONLY_LARGEST in note and note in compare_trainings(NAME, plans="tiny")
    kept = read_json(jobs[1].validation / "metrics.json")["foreground_mean"]["dice"]
    assert f"with only the largest piece {100 * kept:.2f}" in sentence


def test_tables_without_pieces_are_left_out_and_references_in_several_pieces_end_it(
    hearts_folders,
):
    jobs = [fake_job(hearts_folders, trainer) for trainer in (BASE, OURS)]
    path = jobs[0].validation / "metrics.json"
    content = read_json(path)
    write_json(path, {key: value for key, value in content.items() if key != "pieces"})
    (sentence,) = describe_pieces(jobs, "validation")
    assert "2 of 3" in sentence and "0 of 3" not in sentence
    write_json(path, {**content, "pieces": {REFERENCES: 1}})
    assert describe_pieces(jobs, "validation") == []


def test_models_of_lesions_become_models_of_one_piece(hearts_folders):
    jobs = [fake_job(hearts_folders, OURS)]
    model, today = jobs[0].folder.parent, hearts_folders.preprocessed / "dataset.json"
    for ours, theirs in (({"one_piece": True}, {"lesions": ["any"]}), ({"lesions": ["any"]}, {})):
        content = read_json(today)
        plain = {key: content[key] for key in content.keys() - {"one_piece", "lesions"}}
        write_json(today, {**plain, **ours})
        write_json(model / "dataset.json", {**plain, **theirs, "one_piece": "lesions" in ours})
        update_models(jobs)
        written = read_json(model / "dataset.json")
        assert [*find_one_piece_problems(written, "dataset.json")] == []
        assert {key: written[key] for key in ours} == ours


def test_models_learn_that_the_foreground_is_one_piece_and_forget_it(hearts_folders):
    jobs = [fake_job(hearts_folders, trainer) for trainer in (BASE, OURS)]
    model = TrainedModel(jobs[1].folder.parent, ("0",))
    files = sorted(jobs[1].validation.glob("*.nii.gz"))
    before = {path: read(path) for path in files}
    keep_largest_pieces(jobs[1].validation, model)
    assert all(np.array_equal(read(path), labels) for path, labels in before.items())
    for value in (True, False):
        path = hearts_folders.preprocessed / "dataset.json"
        write_json(path, {**read_json(path), "one_piece": value})
        update_models(jobs)
        assert all(read_json(job.folder.parent / path.name)["one_piece"] is value for job in jobs)
        if value:
            keep_largest_pieces(jobs[1].validation, model)
            for file, labels in before.items():
                assert np.array_equal(read(file), keep_largest_component(labels, [1, 2]))


def read(path):
    return sitk.GetArrayFromImage(sitk.ReadImage(path))
