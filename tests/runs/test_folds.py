"""Folds are of whole patients, validate on no pseudo labels, and are those there are."""

from __future__ import annotations

import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from semi_nnunet.raw.folds import MAX_FOLDS, case_as_patient, make_folds
from semi_nnunet.raw.layout import PSEUDO_LABELLED_FILE
from semi_nnunet.runs.folds import (
    count_dataset_folds,
    find_fold_problems,
    list_folds,
    write_missing_folds,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from semi_nnunet.workflows.crossval import make_jobs


def test_folds_are_of_whole_patients_for_nnunets_own_trainers_too(folders, tmp_path):
    """nnU-Net's trainer takes the file that is there."""
    copy = Path(
        shutil.copytree(folders.preprocessed, tmp_path / "copy" / folders.preprocessed.name)
    )
    copied = replace(folders, preprocessed=copy, raw=tmp_path)
    (copy / "splits_final.json").unlink(missing_ok=True)
    make_jobs(copied, "tiny", ["2d"], ["nnUNetTrainer"], ["0"], 1)
    assert not (copy / "splits_final.json").exists()  # nnU-Net makes its own
    cases = sorted(path.name[:-7] for path in (copy / "gt_segmentations").iterdir())
    pair = "|".join(map(re.escape, cases[:2]))
    description = {**read_json(copy / "dataset.json"), "patient": f"(?=(?:{pair})$)(.)|.+"}
    write_json(copy / "dataset.json", description)
    with pytest.raises(UserError, match="fold '4': there are 4 folds"):
        make_jobs(copied, "tiny", ["2d"], ["nnUNetTrainer"], ["4"], 1)
    make_jobs(copied, "tiny", ["2d"], ["nnUNetTrainer"], ["all"], 1)
    assert not (copy / "splits_final.json").exists()
    make_jobs(copied, "tiny", ["2d"], ["nnUNetTrainer"], ["3"], 1)
    validation = sorted(sorted(fold["val"]) for fold in read_json(copy / "splits_final.json"))
    assert validation == sorted([cases[:2], *([case] for case in cases[2:])])
    torn = {"train": [cases[0]], "val": [cases[1]]}
    write_json(copy / "splits_final.json", [torn])
    with pytest.raises(UserError, match="fold 0 trains and"):
        make_jobs(copied, "tiny", ["2d"], ["nnUNetTrainer"], ["0"], 1)
    assert make_jobs(copied, "tiny", ["2d"], ["nnUNetTrainer"], ["all"], 1)
    with pytest.raises(UserError, match=r"'patient' is absent, .*'\(\?"):
        make_jobs(replace(copied, raw=folders.raw), "tiny", ["2d"], ["nnUNetTrainer"], ["all"], 1)


def test_new_folds_validate_on_no_pseudo_labels(folders, tmp_path):
    copy = Path(
        shutil.copytree(folders.preprocessed, tmp_path / "copy" / folders.preprocessed.name)
    )
    copied = replace(folders, preprocessed=copy)
    cases = sorted(path.name[:-7] for path in (copy / "gt_segmentations").iterdir())
    write_json(copy / PSEUDO_LABELLED_FILE, cases[3:])
    (copy / "splits_final.json").unlink(missing_ok=True)
    with pytest.raises(UserError, match="fold '3': there are 3 folds"):
        make_jobs(copied, "tiny", ["2d"], ["nnUNetTrainer"], ["3"], 1)
    make_jobs(copied, "tiny", ["2d"], ["nnUNetTrainer"], ["0"], 1)
    folds = read_json(copy / "splits_final.json")
    assert sorted(case for fold in folds for case in fold["val"]) == cases[:3]
    assert all({*cases[3:]} <= {*fold["train"]} for fold in folds)


def test_by_default_all_folds_are_trained(folders, tmp_path):
    assert list_folds(folders) == ["0", "1", "2", "3", "4"]
    copy = Path(
        shutil.copytree(folders.preprocessed, tmp_path / "copy" / folders.preprocessed.name)
    )
    description = read_json(copy / "dataset.json")
    (copy / "splits_final.json").unlink(missing_ok=True)
    for labelled, folds in ((4, ["0", "1", "2", "3"]), (1, ["all"])):
        write_json(copy / "dataset.json", {**description, "numTraining": labelled})
        assert list_folds(replace(folders, preprocessed=copy)) == folds
    assert list_folds(replace(folders, preprocessed=tmp_path)) == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("labelled", [1, 2, 4, 5, 12])
def test_there_are_as_many_folds_as_will_be_made(empty, labelled):
    write_json(empty.preprocessed / "dataset.json", {"numTraining": labelled})
    cases = [f"case{n}" for n in range(labelled)]
    assert count_dataset_folds(empty) == len(make_folds(cases, case_as_patient)) <= MAX_FOLDS
    write_json(empty.preprocessed / "splits_final.json", make_folds(cases, case_as_patient)[:3])
    assert count_dataset_folds(empty) == min(
        3, len(make_folds(cases, case_as_patient))
    )  # a user's split


def test_patients_and_not_cases_are_counted(empty):
    description = {"numTraining": 6, "file_ending": ".nii.gz", "patient": "p[0-9]"}
    write_json(empty.preprocessed / "dataset.json", description)
    labels = empty.raw / "labelsTr"
    labels.mkdir()
    for number in range(6):
        (labels / f"p{number // 2}_{number}.nii.gz").touch()
    assert count_dataset_folds(empty) == 3
    write_json(empty.preprocessed / PSEUDO_LABELLED_FILE, ["p2_4", "p2_5"])
    assert count_dataset_folds(empty) == 2  # the third patient has only pseudo-labels


def test_an_unknown_fold_is_named_with_the_existing_folds(empty):
    write_json(empty.preprocessed / "dataset.json", {"numTraining": 2})
    problems = list(find_fold_problems(empty, ["0", "1", "all", "2", "-1", "01"]))
    assert [problem.where for problem in problems] == ["fold '2'", "fold '-1'", "fold '01'"]
    assert {str(problem).split(": ", 1)[1] for problem in problems} == {
        "there are 2 folds. Fix: choose from 0, 1, all"
    }


def test_only_the_torn_folds_that_are_trained_are_refused(empty):
    write_json(empty.raw / "dataset.json", {"patient": "p[0-9]"})
    torn, whole = {"train": ["p1_a"], "val": ["p1_b"]}, {"train": ["p1_a", "p1_b"], "val": ["p2"]}
    write_json(empty.preprocessed / "splits_final.json", [torn, whole])
    assert list(find_fold_problems(empty, ["1", "all"])) == []
    (problem,) = find_fold_problems(empty, ["0", "1"])
    assert "fold 0 trains and" in problem.what and "p1" in problem.what


def test_nnunets_own_folds_are_left_to_it(empty):
    write_missing_folds(empty, {}, ["2d"], ["0"])  # it needs no plans to know
    write_json(empty.preprocessed / PSEUDO_LABELLED_FILE, ["a"])
    write_missing_folds(empty, {}, ["2d"], ["all"])
    assert not (empty.preprocessed / "splits_final.json").exists()


def test_crossval_warns_of_labelled_cases_in_no_fold(folders, tmp_path, capsys):
    copy = Path(
        shutil.copytree(folders.preprocessed, tmp_path / "copy" / folders.preprocessed.name)
    )
    copied = replace(folders, preprocessed=copy)
    first, second, *others = copied.labelled_cases()
    write_json(copy / "splits_final.json", [{"train": [second], "val": [first]}])
    make_jobs(copied, "tiny", ["2d"], ["nnUNetTrainer"], ["all"], 1)
    assert "leaves out" not in capsys.readouterr().out
    make_jobs(copied, "tiny", ["2d"], ["nnUNetTrainer"], ["0"], 1)
    assert f"leaves out {len(others)} labelled cases" in capsys.readouterr().out
