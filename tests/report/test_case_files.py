"""Everything that was drawn on a case is found where trainings left it, or nothing is."""

from __future__ import annotations

import csv
import shutil
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.evaluation.values import Model
from semi_nnunet.report.case_files import (
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
        *(tmp_path / "tree" / kind / NAME for kind in ("raw", "preprocessed", "results"))
    )


def files_of(folders: Folders, subset: str = "test") -> CaseFiles:
    return CaseFiles(folders, subset, find_jobs(folders))


def test_image_reference_and_predictions_are_of_the_first_seed_that_both_have(folders):
    found = files_of(folders).find("test_0", METHOD, BASELINE)
    assert found is not None and (found.fold, found.seed) == ("0", 0)
    assert found.image == folders.raw / "imagesTs" / "test_0_0000.nii.gz"
    assert set(found.labels) == {"reference", "method", "baseline"}
    assert found.labels["reference"] == folders.raw / "labelsTs" / "test_0.nii.gz"
    assert all(path.is_file() for path in (*found.labels.values(), *found.tables.values()))
    gone = folders.results / f"{BASE}__nnUNetPlans__2d" / "fold_0" / "test" / "test_0.nii.gz"
    gone.unlink()
    later = files_of(folders).find("test_0", METHOD, BASELINE)
    assert later is not None and later.seed == 1
    for name, trainer in (("method", OURS), ("baseline", BASE)):
        where = folders.results / f"{trainer}__nnUNetPlans_seed1__2d" / "fold_0" / "test"
        assert later.labels[name] == where / "test_0.nii.gz"
        assert later.tables[name] == where / "metrics.csv"


def test_without_a_baseline_only_the_method_is_looked_for(folders):
    shutil.rmtree(folders.results / f"{BASE}__nnUNetPlans__2d")
    shutil.rmtree(folders.results / f"{BASE}__nnUNetPlans_seed1__2d")
    files = files_of(folders)
    assert files.find("test_0", METHOD, BASELINE) is None
    alone = files.find("test_0", METHOD, None)
    assert alone is not None and set(alone.labels) == {"reference", "method"}
    assert files.find("test_0", Model(OURS, "3d_fullres"), None) is None  # of no training


@pytest.mark.parametrize("gone", ["imagesTs/test_1_0000.nii.gz", "labelsTs/test_1.nii.gz"])
def test_a_case_whose_image_or_reference_is_gone_is_not_shown(folders, gone):
    (folders.raw / gone).unlink()
    files = files_of(folders)
    assert files.find("test_1", METHOD, BASELINE) is None
    assert files.find("test_2", METHOD, BASELINE) is not None


def test_validation_cases_have_the_references_that_nnunet_keeps(folders):
    validation = folders.results / f"{OURS}__nnUNetPlans__2d" / "fold_0" / "validation"
    validation.mkdir()
    shutil.copy(folders.preprocessed / "gt_segmentations" / "validation_0.nii.gz", validation)
    found = files_of(folders, "validation").find("validation_0", METHOD, None)
    assert found is not None and found.image.parent == folders.raw / "imagesTr"
    assert found.labels["reference"].parent == folders.preprocessed / "gt_segmentations"
    assert files_of(folders, "test").find("validation_0", METHOD, None) is None


def test_a_data_set_that_is_gone_is_told(folders):
    shutil.rmtree(folders.raw)
    with pytest.raises(UserError, match=r"dataset\.json"):
        files_of(folders)


def test_labels_are_read_as_the_data_set_says(folders, tree):
    files = files_of(folders)
    found = files.find("test_3", METHOD, None)
    assert found is not None
    (folders.preprocessed / "dataset.json").unlink()  # that of the raw data set says the same
    labelling = load_labelling(files, [found])
    assert dict(labelling.classes) == {"liver": (1,), "tumour": (2,)} and labelling.ignore is None
    array, geometry = read_voxels(found.labels["reference"], labelling, is_label=True)
    assert np.array_equal(array[0], tree.references["test_3"])
    assert geometry.spacing == pytest.approx((3.0, 1.0, 0.7)) and not has_flat_images(
        found, labelling
    )


def test_rows_are_those_of_the_case_by_class(folders):
    path = folders.results / f"{OURS}__nnUNetPlans__2d" / "fold_0" / "test" / "metrics.csv"
    with path.open(newline="") as file:
        wanted = {row["class"]: row for row in csv.DictReader(file) if row["case"] == "test_2"}
    assert read_metric_rows(path, "test_2") == wanted and set(wanted) == {"liver", "tumour"}
    assert (
        read_metric_rows(path, "test_20") == {}
        and read_metric_rows(Path("gone.csv"), "test_2") == {}
    )
