"""All files of a case are found, or none."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.evaluation.values import Model
from semi_nnunet.reporting.case_files import (
    CaseFiles,
    has_flat_images,
    load_labelling,
    read_metric_rows,
    read_voxels,
)
from semi_nnunet.runs.folders import Folders
from semi_nnunet.runs.trainings import find_jobs
from semi_nnunet.util.errors import UserError
from tests.report.results_tree import BASE, NAME, OURS

METHOD, BASELINE = Model(OURS, "2d"), Model(BASE, "2d")


@pytest.fixture
def folders(tree, tmp_path) -> Folders:
    """A copy of the tree, to take files away from."""
    shutil.copytree(tree.root, tmp_path / "tree")
    return Folders(
        *(tmp_path / "tree" / name / NAME for name in ("raw", "preprocessed", "results"))
    )


def files_of(folders: Folders, subset: str = "test") -> CaseFiles:
    return CaseFiles(folders, subset, find_jobs(folders))


def test_predictions_are_of_the_first_seed_that_both_models_have(folders):
    files_of_case = files_of(folders).find("test_0", METHOD, BASELINE)
    assert files_of_case is not None and (files_of_case.fold, files_of_case.seed) == ("0", 0)
    assert files_of_case.image == folders.raw / "imagesTs" / "test_0_0000.nii.gz"
    assert set(files_of_case.labels) == {"reference", "method", "baseline"}
    assert files_of_case.labels["reference"] == folders.raw / "labelsTs" / "test_0.nii.gz"
    assert all(
        path.is_file() for path in (*files_of_case.labels.values(), *files_of_case.tables.values())
    )
    gone = folders.results / f"{BASE}__nnUNetPlans__2d" / "fold_0" / "test" / "test_0.nii.gz"
    gone.unlink()
    later = files_of(folders).find("test_0", METHOD, BASELINE)
    assert later is not None and later.seed == 1
    for name, trainer in (("method", OURS), ("baseline", BASE)):
        folder = folders.results / f"{trainer}__nnUNetPlans_seed1__2d" / "fold_0" / "test"
        assert later.labels[name] == folder / "test_0.nii.gz"
        assert later.tables[name] == folder / "metrics.csv"


def test_without_a_baseline_only_the_method_needs_predictions(folders):
    shutil.rmtree(folders.results / f"{BASE}__nnUNetPlans__2d")
    shutil.rmtree(folders.results / f"{BASE}__nnUNetPlans_seed1__2d")
    files = files_of(folders)
    assert files.find("test_0", METHOD, BASELINE) is None
    only_method = files.find("test_0", METHOD, None)
    assert only_method is not None and set(only_method.labels) == {"reference", "method"}
    assert files.find("test_0", Model(OURS, "3d_fullres"), None) is None  # of no training


@pytest.mark.parametrize("gone", ["imagesTs/test_1_0000.nii.gz", "labelsTs/test_1.nii.gz"])
def test_a_case_whose_image_or_reference_is_gone_is_not_shown(folders, gone):
    (folders.raw / gone).unlink()
    files = files_of(folders)
    assert files.find("test_1", METHOD, BASELINE) is None
    assert files.find("test_2", METHOD, BASELINE) is not None


def test_validation_cases_use_the_references_of_nnunet(folders):
    validation = folders.results / f"{OURS}__nnUNetPlans__2d" / "fold_0" / "validation"
    validation.mkdir()
    shutil.copy(folders.preprocessed / "gt_segmentations" / "validation_0.nii.gz", validation)
    files_of_case = files_of(folders, "validation").find("validation_0", METHOD, None)
    assert files_of_case is not None and files_of_case.image.parent == folders.raw / "imagesTr"
    assert files_of_case.labels["reference"].parent == folders.preprocessed / "gt_segmentations"
    assert files_of(folders, "test").find("validation_0", METHOD, None) is None


def test_a_missing_data_set_is_reported(folders):
    shutil.rmtree(folders.raw)
    with pytest.raises(UserError, match=r"dataset\.json"):
        files_of(folders)


def test_labels_are_read_as_the_data_set_describes_them(folders, tree):
    files = files_of(folders)
    files_of_case = files.find("test_3", METHOD, None)
    assert files_of_case is not None
    (folders.preprocessed / "dataset.json").unlink()  # the raw data set has the same
    labelling = load_labelling(files, [files_of_case])
    assert dict(labelling.classes) == {"liver": (1,), "tumour": (2,)} and labelling.ignore is None
    array, geometry = read_voxels(files_of_case.labels["reference"], labelling, is_label=True)
    assert np.array_equal(array[0], tree.references["test_3"])
    assert geometry.spacing == pytest.approx((3.0, 1.0, 0.7)) and not has_flat_images(
        files_of_case, labelling
    )


def test_rows_of_a_case_are_read_by_class(folders):
    path = folders.results / f"{OURS}__nnUNetPlans__2d" / "fold_0" / "test" / "metrics.csv"
    with path.open(newline="") as file:
        expected = {row["class"]: row for row in csv.DictReader(file) if row["case"] == "test_2"}
    assert read_metric_rows(path, "test_2") == expected and set(expected) == {"liver", "tumour"}
    assert (
        read_metric_rows(path, "test_20") == {}
        and read_metric_rows(Path("gone.csv"), "test_2") == {}
    )
