"""Folds and plans of a distilled data set come from its source."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from semi_nnunet.preprocessing.planning import fingerprint_fits
from semi_nnunet.pseudo_labels.distilled_dataset import (
    add_ignore_label,
    collect_fold_cases,
    find_missing_plans,
    list_cascade_stages,
    load_available_plans,
    load_or_make_folds,
    require_image_folders,
    write_distilled_folds,
    write_distilled_plans,
    write_pseudo_labelled_cases,
)
from semi_nnunet.pseudo_labels.pool import LabellingRequest
from semi_nnunet.raw.folds import (
    build_patient_finder,
    case_as_patient,
    find_split_patients,
    make_folds,
    read_pseudo_labelled_cases,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import read_json, write_json
from tests.conftest import no_processes


def test_folds_of_the_source_are_copied_and_existing_ones_kept(tmp_path):
    source, target = tmp_path / "source", tmp_path / "target"
    source.mkdir()
    folds = [{"train": ["a", "b"], "val": ["c"]}, {"train": ["c"], "val": ["a", "b"]}]
    write_json(source / "splits_final.json", folds)
    assert load_or_make_folds(source, ["a", "b", "c"], case_as_patient) == folds
    assert write_distilled_folds(folds, target, ["p"], case_as_patient) == 2
    written = read_json(target / "splits_final.json")
    assert written[1] == {"train": ["c", "p"], "val": ["a", "b"]}
    write_json(target / "splits_final.json", written[:1])  # somebody's choice
    assert write_distilled_folds(folds, target, ["p"], case_as_patient) == 1
    with pytest.raises(UserError, match="other cases"):
        write_distilled_folds(folds, target, ["q"], case_as_patient)


def test_a_single_labelled_case_has_no_fold(tmp_path):
    folds = load_or_make_folds(tmp_path, ["only"], case_as_patient)
    assert write_distilled_folds(folds, tmp_path, ["pseudo"], case_as_patient) == 0
    assert write_distilled_folds(folds, tmp_path, ["pseudo"], case_as_patient) == 0  # again
    assert read_json(tmp_path / "splits_final.json") == []


def test_pseudo_labels_of_a_patient_do_not_train_folds_that_validate_on_it(tmp_path):
    labelled, pseudo_labelled = ["p1_a", "p1_b", "p2_a", "p3_a"], ["p1_c", "p2_b", "p9_a"]
    patient_of = build_patient_finder({"patient": "p[0-9]"})
    folds = load_or_make_folds(tmp_path / "source", labelled, patient_of)
    assert write_distilled_folds(folds, tmp_path, pseudo_labelled, patient_of) == 3
    for fold in read_json(tmp_path / "splits_final.json"):
        assert not find_split_patients(fold, patient_of) and {*fold["val"]} <= {*labelled}
        assert len(fold["train"]) + len(fold["val"]) == 7 - (fold["val"] != ["p3_a"])
    assert write_distilled_folds(folds, tmp_path, pseudo_labelled, patient_of) == 3
    # as somebody who deletes the file gets them, too
    again = make_folds([*labelled, *pseudo_labelled], patient_of, pseudo_labelled)
    assert again == read_json(tmp_path / "splits_final.json")


def test_folds_that_split_patients_are_refused(tmp_path):
    patient_of = build_patient_finder({"patient": "p[0-9]"})
    torn = [{"train": ["p1_a", "p2_a"], "val": ["p1_b"]}]
    write_json(tmp_path / "splits_final.json", torn)
    with pytest.raises(UserError, match=r"fold 0 of .* p1\b"):
        load_or_make_folds(tmp_path, ["p1_a", "p1_b", "p2_a"], patient_of)
    whole = [{"train": ["p2_a"], "val": ["p1_a", "p1_b"]}]
    write_json(tmp_path / "splits_final.json", [{**whole[0], "train": ["p2_a", "p1_c"]}])
    with pytest.raises(UserError, match="fold 0 of"):
        write_distilled_folds(whole, tmp_path, ["p1_c"], patient_of)


def test_data_sets_that_list_their_files_are_refused(tmp_path):
    write_json(tmp_path / "dataset.json", {"dataset": {"case": {}}})
    with pytest.raises(UserError, match="one by one"):
        require_image_folders(tmp_path)


def test_copied_plans_keep_given_settings_and_are_not_planned_again(raw, tmp_path):
    target = tmp_path / "preprocessed" / raw.name
    settings, planned = {"mirror": False}, {"mirror": False, "2d": {"epochs": 7}}
    plans = {"plans_name": "small", "dataset_name": "Other", "configurations": {}, "semi": planned}
    plans["semi_planned"] = {"given": settings, "semi": planned, "from": "nnUNetPlans"}
    with no_processes():
        write_distilled_plans(raw, target, "small", plans, 1)
    written = read_json(target / "small.json")
    assert written["semi"] == settings and written["dataset_name"] == raw.name
    assert written["semi_planned"]["from"] == "nnUNetPlans"
    assert fingerprint_fits(raw, target)
    write_json(target / "small.json", {**written, "semi": {"mirror": True}})  # a person's
    write_distilled_plans(raw, target, "small", plans, 1)
    assert read_json(target / "small.json")["semi"] == {"mirror": True}


def test_folds_keep_their_cases_and_also_train_on_pseudo_labelled_ones(tmp_path):
    labelled, pseudo_labelled = [f"c{n}" for n in range(7)], ["p1", "p2", "p3"]
    folds = load_or_make_folds(tmp_path / "source", labelled, case_as_patient)
    assert (
        write_distilled_folds(folds, tmp_path / "target", pseudo_labelled, case_as_patient)
        == len(folds)
        == 5
    )
    written = read_json(tmp_path / "target" / "splits_final.json")
    for source_fold, fold in zip(folds, written, strict=True):
        assert fold == {
            "train": [*source_fold["train"], *pseudo_labelled],
            "val": source_fold["val"],
        }
    assert (
        collect_fold_cases(written) == {*labelled, *pseudo_labelled}
        and collect_fold_cases([]) == set()
    )


def test_pseudo_labelled_cases_are_listed_for_trainers(tmp_path):
    write_pseudo_labelled_cases(tmp_path / "target", {"p2": 0.1, "p1": 0.2})
    assert read_pseudo_labelled_cases(tmp_path / "target") == {"p1", "p2"}


def test_an_ignore_label_is_declared_if_voxels_have_it(pool):
    description = pool.models[0].dataset_json
    sure = LabellingRequest(pool.images, pool.out, (pool.names[0],))
    assert add_ignore_label(description, sure) == description["labels"]
    careful = LabellingRequest(pool.images, pool.out, (pool.names[0],), confidence=0.6)
    values = description["labels"].values()
    assert add_ignore_label(description, careful) == {
        **description["labels"],
        "ignore": max(values) + 1,
    }
    with_own_label = {**description, "labels": {**description["labels"], "ignore": 9}}
    assert add_ignore_label(with_own_label, careful) == with_own_label["labels"]


def test_the_stages_of_a_cascade_are_listed_in_order(cascade):
    plans = cascade.models[0].plans
    assert list_cascade_stages(plans, "3d_cascade_fullres") == ("3d_lowres", "3d_cascade_fullres")
    assert list_cascade_stages(plans, "2d") == ("2d",) and list_cascade_stages(plans, "gone") == (
        "gone",
    )


def test_plans_of_the_source_come_before_those_of_the_models(tmp_path):
    for name in ("own", "shared"):
        write_json(tmp_path / f"{name}.json", {"plans_name": name, "configurations": {}, "of": 0})
    write_json(tmp_path / "dataset.json", {"labels": {}})
    models = [
        SimpleNamespace(plans={"plans_name": name, "of": number})
        for number, name in ((1, "shared"), (2, "theirs"), (3, "theirs"))
    ]
    available = load_available_plans(tmp_path, models)
    assert {name: plans["of"] for name, plans in available.items()} == {
        "own": 0, "shared": 0, "theirs": 2,
    }  # fmt: skip


def test_missing_plans_and_configurations_are_reported():
    plans = {"small": {"configurations": {"2d": {}}}}
    assert list(find_missing_plans("small", "2d", plans)) == []
    (problem,) = find_missing_plans("smal", "2d", plans)
    assert "did you mean 'small'" in problem.fix
    (problem,) = find_missing_plans("small", "2D", plans)
    assert "did you mean '2d'" in problem.fix
