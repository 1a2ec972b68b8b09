"""The classes of a data set, and which cases annotate them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from nnunetv2.utilities.label_handling.label_handling import LabelManager

from semi_nnunet.raw.classes import (
    AnnotatedClasses,
    find_annotated_case_problems,
    find_annotation_problems,
    get_declared_classes,
    get_declared_values,
    has_partial_labels,
    has_regions,
    restrict_annotations,
)
from semi_nnunet.util.errors import UserError
from semi_nnunet.verify.integrity import check_dataset, find_dataset_problems
from semi_nnunet.verify.reports import read_reports, write_reports
from tests.data.copied import Copy
from tests.data.raw_datasets import SHAPE, describe, only_problem, problems_in, write

LABELS = {"background": 0, "spleen": 2, "liver": 1, "kidney": 3, "ignore": 4}
REGIONS = {"background": 0, "whole": [1, 2, 3], "rim": 1, "core": [3], "ignore": 4}
ENTRY = {
    "msd_*": ["spleen"],
    "msd_007": ["kidney", "liver"],
    "b?": ["liver", "spleen", "kidney"],
    "case[1]_*": ["kidney"],
}
CPU = torch.device("cpu")


# ---- labels ----

CLASSES = {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}
TUMOUR = {"background": 0, "whole": [1, 2], "core": [2], "rim": 1, "ignore": 3}


def test_classes_and_regions_have_their_values():
    assert get_declared_classes(CLASSES) == {"liver": (1,), "spleen": (2,)}
    assert get_declared_classes(TUMOUR) == {"whole": (1, 2), "core": (2,), "rim": (1,)}
    assert get_declared_values(CLASSES) == get_declared_values(TUMOUR) == {0, 1, 2, 3}
    assert has_regions(TUMOUR) and not has_regions(CLASSES)
    assert not has_regions({"background": 0, "liver": [1]})  # as nnU-Net


@pytest.mark.parametrize("value", [1.5, "liver", None])
def test_a_label_that_is_no_whole_number_is_refused(value):
    with pytest.raises((TypeError, ValueError)):
        get_declared_values({"background": 0, "liver": value})


# ---- annotated classes ----


def told(entry: Any = ENTRY, labels: Any = LABELS) -> AnnotatedClasses:
    found = AnnotatedClasses.of({"labels": labels, "annotated": entry})
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("case", "names"),
    [
        ("msd_001", ("spleen",)),
        ("msd_007", ("liver", "kidney")),  # its own name, whatever pattern matches
        ("b1", ("spleen", "liver", "kidney")),
        ("b12", ("spleen", "liver", "kidney")),  # nothing is told
        ("a_msd_001", ("spleen", "liver", "kidney")),  # a pattern matches the whole name
        ("case[1]_3", ("kidney",)),
        ("case1_3", ("spleen", "liver", "kidney")),
    ],
)
def test_a_case_annotates_the_list_of_its_name_or_of_a_pattern(case, names):
    assert told().names(case) == names


def test_without_an_entry_every_case_annotates_all():
    for description in ({"labels": LABELS}, {"labels": LABELS, "annotated": {}}):
        assert AnnotatedClasses.of(description) is None and not has_partial_labels(description)
        assert restrict_annotations(description, ["a"]) == {"labels": LABELS}


def test_rows_are_the_outputs_of_the_network():
    rows = told().rows(["msd_007", "msd_1", "other", "msd_007"], CPU)
    assert rows.tolist() == [
        [True, True, False, True],  # background, then classes by their number
        [True, False, True, False],
        [True] * 4,
        [True, True, False, True],
    ]
    regions = {"a": ["rim"], "c*": ["core", "whole"]}
    rows = told(regions, REGIONS).rows(["a", "b", "cc"], CPU)
    assert rows.tolist() == [[False, True, False], [True] * 3, [True, False, True]]
    manager = LabelManager(REGIONS, regions_class_order=[1, 2, 3])
    assert manager.foreground_regions == [(1, 2, 3), 1, (3,)]  # their order at nnU-Net
    assert LabelManager(LABELS, None).foreground_labels == [1, 2, 3]


def test_a_label_may_hold_what_any_annotated_region_explains():
    assert told().unknown_values("msd_007") == {2} and not told().unknown_values("other")
    regions = told({"a": ["rim"], "b": ["whole"], "c": ["core"]}, REGIONS)
    assert [regions.unknown_values(case) for case in "abcd"] == [{2, 3}, set(), {1, 2}, set()]


def test_cases_are_counted_for_each_class():
    sentence = told().summarise(["msd_007", "msd_1", "other", "b1"])
    assert sentence.startswith("2 of 4") and sentence.endswith("spleen 3, liver 3, kidney 3")


def test_a_description_of_some_cases_keeps_their_classes():
    source = {"labels": LABELS, "annotated": ENTRY, "numTraining": 4}
    cases = ["msd_1", "msd_007", "other"]
    made = restrict_annotations(source, cases)
    assert made["annotated"] == {"msd_1": ["spleen"], "msd_007": ["liver", "kidney"]}
    new = AnnotatedClasses.of(made)
    assert [new.names(case) for case in cases] == [told().names(case) for case in cases]
    assert "annotated" not in restrict_annotations(source, ["other"])


# ---- mistakes ----


@pytest.mark.parametrize(
    ("entry", "value"),
    [
        (["a"], "got ['a']"),
        (None, "got None"),
        ({"a": "liver"}, "'a' must be a list"),
        ({"a": [1]}, "got [1]"),
        ({"a": []}, "'a' must name"),
        ({"a": ["liver", "background"]}, "got background"),
        ({"a": ["ignore"]}, "got ignore"),
        ({"a": ["Liver", "spleen", "lung"]}, "(spleen, liver, kidney), got Liver, lung"),
    ],
)
def test_an_unusable_entry_is_named(entry, value):
    (problem,) = find_annotation_problems({"labels": LABELS, "annotated": entry}, "dataset.json")
    assert value in problem.what and problem.where == "dataset.json" and problem.fix
    with pytest.raises(UserError):
        AnnotatedClasses.of({"labels": LABELS, "annotated": entry})


def test_all_problems_of_an_entry_are_reported_together():
    entry = {"a": [], "b": ["lung"], "c": 3, "d": ["liver"]}
    assert len(list(find_annotation_problems({"labels": LABELS, "annotated": entry}, ""))) == 3


def test_names_of_no_case_and_contradicting_patterns_are_named():
    entry = {
        "a*": ["liver"], "*1": ["spleen"], "a2": ["liver"], "x": ["liver"], "u": ["liver"],
        "y*": ["spleen"], "t": ["liver"], "u?": ["liver"],
    }  # fmt: skip
    cases = {"labelled": ["a1", "a2", "b"], "unlabelled": ["u", "u1"], "test": ["t"]}
    description = {"labels": LABELS, "annotated": entry}
    texts = [problem.what for problem in find_annotated_case_problems(description, cases, "")]
    for text, (name, reason) in zip(
        texts,
        [
            ("'x'", "no case"), ("'u'", "an unlabelled case"), ("'y*'", "no labelled case"),
            ("'u?'", "no labelled case"), ("'a1'", "got 'a*' (liver) and '*1' (spleen)"),
        ],
        strict=True,
    ):  # fmt: skip
        assert name in text and text.endswith(reason)


def test_a_class_that_no_case_annotates_is_named():
    cases = {"labelled": ["a", "b"], "unlabelled": [], "test": ["t"]}
    entry = {"a": ["liver"], "b": ["spleen"], "t": ["kidney"]}
    (problem,) = find_annotated_case_problems({"labels": LABELS, "annotated": entry}, cases, "")
    assert problem.what.endswith("kidney")


# ---- files ----


@pytest.fixture
def three_classes(data: Path) -> Path:
    labels = {"background": 0, "liver": 1, "spleen": 2, "ignore": 3}
    describe(data, labels=labels, annotated={"a": ["liver"]})
    some = np.zeros(SHAPE, np.uint8)
    some[:2], some[3] = 1, 3
    write(data / "labelsTr/a.nii.gz", some)
    return data


def test_labels_with_classes_that_they_do_not_annotate_are_named(three_classes):
    assert find_dataset_problems(three_classes) == [] == problems_in(three_classes)
    some = np.zeros(SHAPE, np.uint8)
    some[:2], some[3] = 2, 3
    for case in "ab":  # b annotates all
        write(three_classes / f"labelsTr/{case}.nii.gz", some)
    assert "got 2" in only_problem(three_classes, "labelsTr/a.nii.gz")


def test_a_good_label_is_checked_again_when_the_entry_changes(three_classes, tmp_path):
    reports = check_dataset(three_classes, 1, False)
    write_reports(tmp_path / "reports", reports)
    known = read_reports(tmp_path / "reports")
    content = json.loads((three_classes / "dataset.json").read_text())
    content["annotated"] = {"a": ["spleen"], "b": ["liver"]}
    (three_classes / "dataset.json").write_text(json.dumps(content))
    again = check_dataset(three_classes, 1, False, known)
    assert [bool(report.problems) for report in again] == [True, *[False] * 4]


def test_preprocess_adopts_the_entry_without_planning_again(copy: Copy, capsys) -> None:
    plans = (copy.preprocessed / "nnUNetPlans.json").read_bytes()
    description = json.loads((copy.raw / "dataset.json").read_text())
    wrong = {**description, "annotated": {"phantom_*": ["large"], "phantom_0001": ["lung"]}}
    (copy.raw / "dataset.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match="got lung"):
        copy.prepare()
    wrong["annotated"] = {"phantom_0001": ["large"], "nobody": ["large"]}
    (copy.raw / "dataset.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=r"'nobody', .*no case"):
        copy.prepare()
    wrong["annotated"] = {"phantom_0001": ["large"]}
    (copy.raw / "dataset.json").write_text(json.dumps(wrong))
    with pytest.raises(UserError, match=r"leaves out .*got 2, 3"):
        copy.prepare()
    every = ["large", "pair", "small"]
    right = {**wrong, "annotated": {"phantom_*": every}}
    (copy.raw / "dataset.json").write_text(json.dumps(right))
    assert copy.prepare() == {"2d": (5, 4)}
    assert "of the classes; large 5" in capsys.readouterr().out
    assert json.loads((copy.preprocessed / "dataset.json").read_text()) == right
    assert (copy.preprocessed / "nnUNetPlans.json").read_bytes() == plans
