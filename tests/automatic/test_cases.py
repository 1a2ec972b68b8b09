"""Other cases prove than those that choose, and neither are too few."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from semi_nnunet.automatic.cases import LEAST_PATIENTS, CaseCounts
from semi_nnunet.runs.folders import Folders
from semi_nnunet.util.files import write_json


def cases_of(**changes: object) -> CaseCounts:
    """Twenty labelled patients with an image each, and ten test cases with labels, but for this."""
    plain = CaseCounts(
        folds=5, labelled=20, patients=20, test_cases=10, test_patients=10, has_test_labels=True
    )
    return replace(plain, **changes)


@given(st.integers(0, 5), st.integers(1, 30), st.booleans())
def test_no_fold_both_chooses_and_proves(folds: int, patients: int, labelled: bool) -> None:
    counts = cases_of(folds=folds, patients=patients, has_test_labels=labelled)
    assert not set(counts.choosing_folds) & set(counts.checking_folds)
    assert (
        not counts.choosing_folds
        or counts.count_validated_patients(counts.choosing_folds) >= LEAST_PATIENTS
    )


def test_where_test_cases_have_no_labels_folds_prove() -> None:
    counts = cases_of(has_test_labels=False)
    assert counts.choosing_folds == ("0", "1") and counts.checking_folds == ("2", "3", "4")
    assert cases_of().choosing_folds == ("0", "1", "2") and cases_of().checking_folds == ()


def test_where_few_are_labelled_none_choose_and_more_prove() -> None:
    few = cases_of(patients=9)
    assert few.choosing_folds == () and few.checking_patients == few.test_patients
    few = cases_of(patients=14, has_test_labels=False)
    assert few.choosing_folds == () and few.checking_folds == ("0", "1", "2", "3", "4")
    assert few.checking_patients == 14
    assert cases_of(patients=15, has_test_labels=False).choosing_folds == ("0", "1")
    assert cases_of(patients=10).count_validated_patients(("0", "1", "2")) == LEAST_PATIENTS


def test_patients_are_counted_not_their_images(empty: Folders) -> None:
    description = {"file_ending": ".nii.gz", "numTraining": 6, "patient": "p[0-9]"}
    for folder in (empty.preprocessed, empty.raw):
        write_json(folder / "dataset.json", description)
    for folder in (empty.references, empty.raw / "imagesTs", empty.raw / "labelsTs"):
        folder.mkdir()
    for patient in range(3):
        for frame in range(2):
            (empty.references / f"p{patient}_{frame}.nii.gz").touch()
    for frame in range(2):
        (empty.raw / "imagesTs" / f"p8_{frame}_0000.nii.gz").touch()
    counted = CaseCounts.of(empty)
    assert counted == CaseCounts(
        folds=3, labelled=6, patients=3, test_cases=2, test_patients=1, has_test_labels=False
    )
    (empty.raw / "labelsTs" / "p8_0.nii.gz").touch()
    assert CaseCounts.of(empty).has_test_labels
