"""MM-WHS: labelled cases of one modality, unlabelled ones of the other, on the same axes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.datasets import mmwhs
from semi_nnunet.datasets.mmwhs import NUMBERS
from semi_nnunet.raw.description import RawDataset
from tests.datasets.converting import Converter, cases, counts, read, subsets, write_volume

VALUES = (0, 205, 420, 500, 550, 600, 820, 850)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "MMWHS"
    for modality in ("ct", "mr"):
        for number in NUMBERS:
            scan = root / f"{modality}_train/{modality}_train_{number}"
            write_volume(Path(f"{scan}_image.nii.gz"), number + 50 * (modality == "mr"))
            write_volume(Path(f"{scan}_label.nii.gz"), labels=VALUES)
    write_volume(root / "mr_test/mr_test_2001_image.nii.gz")
    write_volume(root / "nii/mr_test_2001_label_encrypt_1mm.nii.gz")
    return root


def test_from_ct_to_mr_as_published(source: Path, convert: Converter) -> None:
    dataset = convert("mmwhs", source, "--target", "mr")
    assert dataset.name == "Dataset700_MMWHS_ct2mr"
    assert counts(dataset) == {
        **{"imagesTr": 29, "labelsTr": 29, "imagesVal": 3, "labelsVal": 3},
        **{"imagesTs": 4, "labelsTs": 4},
    }
    assert cases(dataset / "imagesTs") == {"mr_1007", "mr_1009", "mr_1018", "mr_1019"}
    assert cases(dataset / "labelsVal") == {"mr_1012", "mr_1015", "mr_1016"}
    (labelled,) = subsets(dataset).values()
    assert tuple(map(int, subsets(dataset))) == mmwhs.PUBLISHED  # with which recipes are checked
    test_ct = {"ct_1003", "ct_1008", "ct_1014", "ct_1019"}
    assert set(labelled) == {f"ct_{number}" for number in NUMBERS} - test_ct
    new = convert.split(dataset, 16)
    assert {case[:2] for case in cases(new / "imagesUn")} == {"mr"}
    for folder in (dataset, new):  # no warning that MR differs from CT
        assert RawDataset.of(folder).other_domain
    assert counts(new)["imagesUn"] == 13


def test_from_mr_to_ct_the_validation_cases_are_drawn(source: Path, convert: Converter) -> None:
    dataset = convert("mmwhs", source, "--target", "ct")
    assert cases(dataset / "imagesTs") == {"ct_1003", "ct_1008", "ct_1014", "ct_1019"}
    assert counts(dataset)["imagesTr"] == 29 and counts(dataset)["imagesVal"] == 3
    assert {case[:2] for case in cases(dataset / "imagesVal")} == {"ct"}


def test_four_structures_are_kept_and_nothing_is_cropped(source: Path, convert: Converter) -> None:
    dataset = convert("mmwhs", source, "--target", "mr")
    label = read(dataset / "labelsTs/mr_1007.nii.gz")
    expected = np.select(
        [np.resize(VALUES, label.shape) == v for v in (205, 420, 500, 820)], [1, 2, 3, 4]
    )
    np.testing.assert_array_equal(label, expected)


def test_all_images_get_the_same_axes(source: Path, convert: Converter) -> None:
    for kind in ("image", "label"):
        path = source / f"ct_train/ct_train_1001_{kind}.nii.gz"
        reoriented = sitk.DICOMOrient(sitk.ReadImage(str(path)), "SRA")
        sitk.WriteImage(reoriented, str(path))
    original = read(source / "ct_train/ct_train_1001_image.nii.gz")
    dataset = convert("mmwhs", source, "--target", "mr")
    image = sitk.ReadImage(str(dataset / "imagesTr/ct_1001_0000.nii.gz"))
    np.testing.assert_allclose(np.reshape(image.GetDirection(), (3, 3)), np.eye(3), atol=1e-6)
    array = sitk.GetArrayFromImage(image)
    assert array.shape != original.shape and sorted(array.flat) == sorted(original.flat)


def test_missing_cases_and_unknown_values_are_reported(source: Path, convert: Converter) -> None:
    path = source / "mr_train/mr_train_1012_label.nii.gz"
    write_volume(path, labels=(0, 205, 77))
    message = convert.error("mmwhs", source, "--target", "mr")
    assert "mr_train_1012" in message and "got 77" in message
    path.unlink()
    message = convert.error("mmwhs", source, "--target", "mr")
    assert "mr_train_1012_label.nii.gz: the file is" in message
