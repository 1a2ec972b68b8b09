"""Synapse: 13 organs, the published 4 / 16 / 4 / 6."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.datasets import synapse
from semi_nnunet.datasets.synapse import ALL, LABELLED
from tests.datasets.converting import SPACING, Converter, cases, counts, read, subsets, write_volume


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "BTCV"
    for i, number in enumerate(ALL):
        write_volume(root / f"RawData/Training/img/img{number}.nii.gz", i)
        write_volume(root / f"RawData/Training/label/label{number}.nii.gz", labels=range(14))
    write_volume(root / "RawData/Testing/img/img0061.nii.gz", 99)
    (root / "README.txt").write_text("a licence")
    return root


def test_cases_are_split_as_published(source: Path, convert: Converter) -> None:
    dataset = convert("synapse", source)
    assert dataset.name == "Dataset700_Synapse"
    assert counts(dataset) == {
        **{"imagesTr": 20, "labelsTr": 20, "imagesVal": 4, "labelsVal": 4},
        **{"imagesTs": 6, "labelsTs": 6},
    }
    assert cases(dataset / "imagesVal") == {
        f"synapse_{n}" for n in ("0001", "0007", "0023", "0030")
    }
    assert subsets(dataset) == {"4": [f"synapse_{number}" for number in LABELLED]}
    assert tuple(map(int, subsets(dataset))) == synapse.PUBLISHED  # with which recipes are checked
    new = convert.split(dataset, 4)
    assert counts(new)["imagesUn"] == 16 and counts(new)["labelsTr"] == 4
    assert not (new / "labelsUn").exists()


def test_images_and_labels_are_the_originals(source: Path, convert: Converter) -> None:
    dataset = convert("synapse", source)
    original = source / "RawData/Training/img/img0005.nii.gz"
    image = dataset / "imagesTr/synapse_0005_0000.nii.gz"
    np.testing.assert_array_equal(read(image), read(original))
    label = sitk.ReadImage(str(dataset / "labelsTr/synapse_0005.nii.gz"))
    assert label.GetSpacing() == SPACING
    assert set(np.unique(sitk.GetArrayFromImage(label))) == set(range(14))
    labels = json.loads((dataset / "dataset.json").read_text())["labels"]
    assert labels["spleen"] == 1 and labels["left_adrenal_gland"] == 13 and len(labels) == 14


def test_files_may_be_linked(source: Path, convert: Converter) -> None:
    dataset = convert("synapse", source, "--symlink")
    assert (dataset / "imagesTs/synapse_0008_0000.nii.gz").is_symlink()
    assert not (dataset / "labelsTs/synapse_0008.nii.gz").is_symlink()


def test_missing_and_unexpected_files_are_all_reported(source: Path, convert: Converter) -> None:
    (source / "RawData/Training/img/img0005.nii.gz").unlink()
    (source / "RawData/Training/label/label0034.nii.gz").unlink()
    write_volume(source / "scan.nii.gz")
    message = convert.error("synapse", source)
    for name in ("img0005.nii.gz", "label0034.nii.gz", "scan.nii.gz: does not belong"):
        assert name in message
    assert "complete the download" in message


def test_a_label_with_an_unknown_value_is_reported(source: Path, convert: Converter) -> None:
    write_volume(source / "RawData/Training/label/label0002.nii.gz", labels=(0, 14))
    message = convert.error("synapse", source)
    assert "label0002.nii.gz" in message and "got 14" in message
