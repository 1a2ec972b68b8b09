"""Folds and plans of a distilled data set are those of its source, with more to train on."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from semi_nnunet.data.existing_plans import fingerprint_fits
from semi_nnunet.data.patients import itself, make_folds, patient_finder, split_patients
from semi_nnunet.data.sampling import pseudo_labelled_cases
from semi_nnunet.pseudo_labels.distilled_dataset import (
    cases_of,
    folds_of,
    known_plans,
    plans_problems,
    require_folders,
    stages_of,
    with_ignore,
    write_folds,
    write_plans,
    write_pseudo_labelled,
)
from semi_nnunet.pseudo_labels.pool import Request
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from tests.conftest import no_processes


def test_folds_of_the_source_are_taken_over_and_those_of_the_target_kept(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    folds = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}]
    write_json(source / "splits_final.json", folds)
    assert folds_of(source, ["a", "b", "c"], itself) == folds
    assert write_folds(folds, target, ["p"], itself) == 2
    made = read_json(target / "splits_final.json")
    assert made[1] == {"train": ["c", "p"], "val": ["a", "b"]}
    write_json(target / "splits_final.json", made[:1])  # somebody's choice
    assert write_folds(folds, target, ["p"], itself) == 1
    with pytest.raises(UserError, match="folds of other cases"):
        write_folds(folds, target, ["q"], itself)


def test_a_single_labelled_case_has_no_fold(tmp_path):
    folds = folds_of(tmp_path, ["only"], itself)
    assert write_folds(folds, tmp_path, ["pseudo"], itself) == 0
    assert write_folds(folds, tmp_path, ["pseudo"], itself) == 0  # again
    assert read_json(tmp_path / "splits_final.json") == []


def test_pseudo_labels_of_a_patient_are_in_no_training_that_validates_on_it(tmp_path):
    labelled, taken = ["p1_a", "p1_b", "p2_a", "p3_a"], ["p1_c", "p2_b", "p9_a"]
    patient_of = patient_finder({"patient": "p[0-9]"})
    folds = folds_of(tmp_path / "source", labelled, patient_of)
    assert write_folds(folds, tmp_path, taken, patient_of) == 3
    for fold in read_json(tmp_path / "splits_final.json"):
        assert not split_patients(fold, patient_of) and {*fold["val"]} <= {*labelled}
        assert len(fold["train"]) + len(fold["val"]) == 7 - (fold["val"] != ["p3_a"])
    assert write_folds(folds, tmp_path, taken, patient_of) == 3
    # as somebody who deletes the file gets them, too
    again = make_folds([*labelled, *taken], patient_of, taken)
    assert again == read_json(tmp_path / "splits_final.json")


def test_folds_of_before_patients_were_told_are_refused(tmp_path):
    patient_of = patient_finder({"patient": "p[0-9]"})
    torn = [{"train": ["p1_a", "p2_a"], "val": ["p1_b"]}]
    write_json(tmp_path / "splits_final.json", torn)
    with pytest.raises(UserError, match=r"fold 0 of .* the same patients: p1\. Fix: delete"):
        folds_of(tmp_path, ["p1_a", "p1_b", "p2_a"], patient_of)
    whole = [{"train": ["p2_a"], "val": ["p1_a", "p1_b"]}]
    write_json(tmp_path / "splits_final.json", [{**whole[0], "train": ["p2_a", "p1_c"]}])
    with pytest.raises(UserError, match="fold 0 of"):
        write_folds(whole, tmp_path, ["p1_c"], patient_of)


def test_files_that_are_listed_one_by_one_are_refused(tmp_path):
    write_json(tmp_path / "dataset.json", {"dataset": {"case": {}}})
    with pytest.raises(UserError, match="lists its files one by one"):
        require_folders(tmp_path)


def test_plans_taken_over_keep_what_was_given_and_are_not_planned_anew(raw, tmp_path):
    target = tmp_path / "preprocessed" / raw.name
    given, planned = {"mirror": False}, {"mirror": False, "2d": {"epochs": 7}}
    plans = {"plans_name": "small", "dataset_name": "Other", "configurations": {}, "semi": planned}
    plans["semi_planned"] = {"given": given, "semi": planned, "from": "nnUNetPlans"}
    with no_processes():
        write_plans(raw, target, "small", plans, 1)
    written = read_json(target / "small.json")
    assert written["semi"] == given and written["dataset_name"] == raw.name
    assert written["semi_planned"]["from"] == "nnUNetPlans"
    assert fingerprint_fits(raw, target)
    write_json(target / "small.json", {**written, "semi": {"mirror": True}})  # a person's
    write_plans(raw, target, "small", plans, 1)
    assert read_json(target / "small.json")["semi"] == {"mirror": True}


def test_folds_keep_their_cases_and_get_the_others_to_train_on(tmp_path):
    labelled, taken = [f"c{n}" for n in range(7)], ["p1", "p2", "p3"]
    folds = folds_of(tmp_path / "source", labelled, itself)
    assert write_folds(folds, tmp_path / "target", taken, itself) == len(folds) == 5
    written = read_json(tmp_path / "target" / "splits_final.json")
    for before, fold in zip(folds, written, strict=True):
        assert fold == {"train": [*before["train"], *taken], "val": before["val"]}
    assert cases_of(written) == {*labelled, *taken} and cases_of([]) == set()


def test_trainers_are_told_which_labels_are_a_models(tmp_path):
    write_pseudo_labelled(tmp_path / "target", {"p2": 0.1, "p1": 0.2})
    assert pseudo_labelled_cases(tmp_path / "target") == {"p1", "p2"}


def test_an_ignore_label_is_declared_if_voxels_have_it(pool):
    description = pool.models[0].dataset_json
    sure = Request(pool.images, pool.out, (pool.names[0],))
    assert with_ignore(description, sure) == description["labels"]
    careful = Request(pool.images, pool.out, (pool.names[0],), confidence=0.6)
    values = description["labels"].values()
    assert with_ignore(description, careful) == {**description["labels"], "ignore": max(values) + 1}
    own = {**description, "labels": {**description["labels"], "ignore": 9}}
    assert with_ignore(own, careful) == own["labels"]


def test_the_stages_of_a_cascade_are_trained_in_their_order(cascade):
    plans = cascade.models[0].plans
    assert stages_of(plans, "3d_cascade_fullres") == ("3d_lowres", "3d_cascade_fullres")
    assert stages_of(plans, "2d") == ("2d",) and stages_of(plans, "gone") == ("gone",)


def test_plans_of_the_source_are_taken_before_those_of_the_models(tmp_path):
    for name in ("own", "shared"):
        write_json(tmp_path / f"{name}.json", {"plans_name": name, "configurations": {}, "of": 0})
    write_json(tmp_path / "dataset.json", {"labels": {}})
    models = [
        SimpleNamespace(plans={"plans_name": name, "of": number})
        for number, name in ((1, "shared"), (2, "theirs"), (3, "theirs"))
    ]
    found = known_plans(tmp_path, models)
    assert {name: plans["of"] for name, plans in found.items()} == {
        "own": 0, "shared": 0, "theirs": 2,
    }  # fmt: skip


def test_plans_and_configurations_that_do_not_exist_are_named():
    plans = {"small": {"configurations": {"2d": {}}}}
    assert list(plans_problems("small", "2d", plans)) == []
    (problem,) = plans_problems("smal", "2d", plans)
    assert "did you mean 'small'" in problem.fix
    (problem,) = plans_problems("small", "2D", plans)
    assert "did you mean '2d'" in problem.fix
