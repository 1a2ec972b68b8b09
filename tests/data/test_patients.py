"""Folds keep the cases of a patient together."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nnunetv2.utilities.crossval_split import generate_crossval_split

from semi_nnunet.raw import folds
from semi_nnunet.raw.folds import (
    build_patient_finder,
    case_as_patient,
    exclude_patients_of,
    find_patient_problems,
    find_split_patients,
    group_by_patient,
    load_folds,
    make_folds,
    read_pseudo_labelled_cases,
    save_folds,
)
from semi_nnunet.raw.layout import PSEUDO_LABELLED_FILE
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json

FRAMES = [f"patient{number:03d}_{phase}" for number in range(8) for phase in ("ED", "ES")]
OF_FRAMES = build_patient_finder({"patient": r"patient\d+"})


@pytest.mark.parametrize(
    ("expression", "case", "patient"),
    [
        (r"patient\d+", "patient001_ED", "patient001"),
        (r"patient(\d+)", "patient001_ED", "001"),
        (r"patient\d+", "other_ED", "other_ED"),
        (r"\d+", "patient001", "patient001"),  # from the start
        (r"(?:a(\d))?b", "b1", "b"),  # the group takes no part
    ],
)
def test_the_patient_is_the_match_from_the_start(expression, case, patient):
    assert build_patient_finder({"patient": expression})(case) == patient


def test_without_an_expression_every_case_is_a_patient_and_folds_are_those_of_nnunet():
    assert build_patient_finder({}) is case_as_patient
    for count in (2, 3, 7, 23):
        cases = [f"case{number}" for number in np.random.default_rng(0).permutation(count)]
        theirs = generate_crossval_split(sorted(cases), n_splits=min(5, count))
        assert make_folds(cases, case_as_patient) == theirs


@given(st.dictionaries(st.integers(0, 99), st.integers(1, 4), min_size=2), st.randoms())
def test_folds_are_of_whole_patients_and_validate_on_each_case_once(sizes, random):
    cases = [f"p{patient}_{i}" for patient, size in sizes.items() for i in range(size)]
    random.shuffle(cases)
    patient_of = build_patient_finder({"patient": r"p\d+"})
    folds = make_folds(cases, patient_of)
    assert len(folds) == min(5, len(sizes))
    assert sorted(case for fold in folds for case in fold["val"]) == sorted(cases)
    for fold in folds:
        assert sorted([*fold["train"], *fold["val"]]) == sorted(cases)
        assert not find_split_patients(fold, patient_of) and fold["train"] and fold["val"]


def test_a_single_patient_has_no_folds():
    assert make_folds(FRAMES[:2], OF_FRAMES) == make_folds(["a"], case_as_patient) == []


def test_cases_are_grouped_and_excluded_by_patient():
    assert exclude_patients_of(FRAMES[:4], FRAMES[3:5], OF_FRAMES) == FRAMES[:2]
    assert group_by_patient(FRAMES[1:4], OF_FRAMES) == {
        "patient000": FRAMES[1:2],
        "patient001": FRAMES[2:4],
    }
    assert find_split_patients({"train": FRAMES[:3], "val": FRAMES[3:]}, OF_FRAMES) == [
        "patient001"
    ]


@pytest.mark.parametrize("expression", ["(", 3, None, "x{99999999999999}"])
def test_an_invalid_expression_is_refused(expression):
    with pytest.raises(UserError, match=r"'patient' .*regular expression"):
        build_patient_finder({"patient": expression})


def test_an_expression_with_several_groups_is_refused():
    """The first would be site A for all of its patients, and of the second site nobody."""
    for expression in (r"(?P<site>[AB])_(?P<patient>\d+)", r"siteA_(\d)|siteB_(\d)"):
        with pytest.raises(UserError, match=r"one group or none, got 2"):
            build_patient_finder({"patient": expression})


def test_cases_without_a_patient_and_patients_who_are_tested_on_are_named():
    description = {"patient": r"patient\d+"}
    cases = {"labelled": FRAMES[:4], "unlabelled": [*FRAMES[4:7], "x"], "test": FRAMES[7:]}
    first, second = find_patient_problems(description, cases, "dataset.json")
    assert first.what.endswith("not match x") and r'"patient\d+|.+"' in first.fix
    assert second.what.startswith("unlabelled cases") and second.what.endswith("patient003_ED")
    (empty,) = find_patient_problems({"patient": r"\d*"}, {**cases, "test": []}, "dataset.json")
    assert "'\\\\d*' does not match patient000" in empty.what  # nothing is no patient
    cases = {"labelled": FRAMES[:4], "unlabelled": FRAMES[4:6], "test": FRAMES[6:]}
    assert not [*find_patient_problems(description, cases, "dataset.json")]
    assert not [*find_patient_problems({}, {**cases, "test": FRAMES}, "dataset.json")]


def test_folds_are_written_and_read(tmp_path):
    assert load_folds(tmp_path) == []
    folds = make_folds(FRAMES, OF_FRAMES)
    save_folds(tmp_path, folds)
    assert load_folds(tmp_path) == folds and (tmp_path / "splits_final.json").is_file()


def test_a_data_set_without_a_list_has_no_pseudo_labelled_cases(tmp_path):
    assert read_pseudo_labelled_cases(tmp_path) == set()
    write_json(tmp_path / PSEUDO_LABELLED_FILE, ["p"])
    assert read_pseudo_labelled_cases(tmp_path) == {"p"}


@pytest.mark.parametrize(
    "expression",
    ["(?:(?:a|b|ab)+)+$", "((a+)+)+c", "(a|a)*c", "a*" * 12 + "c", "a?" * 40 + "a" * 40 + "c"],
)
def test_an_expression_that_never_ends_is_named(monkeypatch, expression: str) -> None:
    monkeypatch.setattr(folds, "MATCH_S", 1)
    cases = {"labelled": ["ab" * 30 + "!"], "unlabelled": ["a" * 60], "test": []}
    (problem,) = find_patient_problems({"patient": expression}, cases, "dataset.json")
    assert "within 1 s" in problem.what


def test_repeats_that_end_are_accepted() -> None:
    cases = {"labelled": ["left_side_1"], "unlabelled": ["right_2"], "test": []}
    assert not [*find_patient_problems({"patient": r"(?:[a-z]+_)+\d+"}, cases, "dataset.json")]
