"""RETOUCH: slices as pictures, masks by nearest neighbour, no volume in training and test."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.datasets.pictures import resize_picture
from semi_nnunet.datasets.retouch import space_evenly
from semi_nnunet.util.errors import UserError
from tests.datasets.converting import (
    Converter,
    cases,
    counts,
    patients,
    read,
    subsets,
    write_volume,
)

SHAPE = (6, 20, 12)  # slices, rows, columns
FIRST = {"Cirrus": 1, "Spectralis": 25, "Topcon": 49}
SMALL = ("--incomplete", "--size", 16, "--training", 24, "--test", 6, "--labelled", 9)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    root = tmp_path / "RETOUCH"
    for vendor, first in FIRST.items():
        for i in range(first, first + 3):
            folder = root / f"RETOUCH-TrainingSet-{vendor}/TRAIN{i:03d}"
            bits = np.uint16 if vendor == "Spectralis" else np.uint8
            write_volume(folder / "oct.mhd", i, shape=SHAPE, dtype=bits)
            mask = np.zeros(SHAPE, dtype=np.uint8)
            mask[:, 5:15, 2:10] = np.arange(SHAPE[0])[:, None, None] % 4
            write_volume(folder / "reference.mhd", 0, mask.ravel(), SHAPE, np.uint8)
    write_volume(root / "RETOUCH-TestSet-Cirrus/TEST001/oct.mhd", shape=SHAPE, dtype=np.uint8)
    return root


def test_test_slices_come_from_other_volumes_than_training_slices(
    source: Path, convert: Converter
) -> None:
    dataset = convert("retouch", source, *SMALL)
    assert counts(dataset) == {"imagesTr": 24, "labelsTr": 24, "imagesTs": 6, "labelsTs": 6}
    test_patients = {case.rsplit("_", 1)[0] for case in cases(dataset / "imagesTs")}
    trained = {case.rsplit("_", 1)[0] for case in cases(dataset / "imagesTr")}
    assert {volume.split("_")[0] for volume in test_patients} == set(FIRST)
    assert patients(dataset, "Ts") == test_patients and patients(dataset, "Tr") == trained
    assert len(test_patients) == 3 and len(trained) == 6 and not test_patients & trained


def test_labelled_slices_are_of_few_volumes_of_several_vendors(
    source: Path, convert: Converter
) -> None:
    dataset = convert("retouch", source, *SMALL)
    (labelled,) = subsets(dataset).values()
    assert len(labelled) == 9
    assert [case.split("_")[0] for case in labelled] == ["Cirrus"] * 4 + ["Spectralis"] * 4 + [
        "Topcon"
    ]
    assert counts(convert.split(dataset, 9))["imagesUn"] == 15


def test_masks_keep_their_values_and_pictures_their_contrast(
    source: Path, convert: Converter
) -> None:
    dataset = convert("retouch", source, *SMALL)
    labels = json.loads((dataset / "dataset.json").read_text())["labels"]
    assert list(labels)[1:] == [
        *("intraretinal_fluid", "subretinal_fluid", "pigment_epithelial_detachment")
    ]
    for path in (dataset / "labelsTr").iterdir():
        mask, number = read(path), int(path.stem.rsplit("_", 1)[1])
        assert mask.shape == (16, 16) and mask.dtype == np.uint8
        assert set(np.unique(mask)) <= {0, number % 4}
        image = read(dataset / f"imagesTr/{path.stem}_0000.png")
        assert image.shape == (16, 16) and image.dtype == np.uint8 and image.std() > 1


def test_a_slice_has_the_number_in_its_name(source: Path, convert: Converter) -> None:
    options = ("--incomplete", "--size", 12, "--training", 36, "--test", 18, "--labelled", 1)
    dataset = convert("retouch", source, *options)
    volume = read(source / "RETOUCH-TrainingSet-Cirrus/TRAIN001/oct.mhd")
    for path in dataset.glob("images*/Cirrus_TRAIN001_*_0000.png"):
        number = int(path.stem.split("_")[2])
        np.testing.assert_array_equal(
            read(path), resize_picture(volume[number], 12, is_label=False)
        )


def test_missing_volumes_and_files_are_reported(source: Path, convert: Converter) -> None:
    folder = source / "RETOUCH-TrainingSet-Topcon"
    (folder / "TRAIN049/reference.mhd").unlink()
    (folder / "TRAIN050/oct.raw").unlink()
    write_volume(source / "TRAIN099/oct.mhd", shape=SHAPE, dtype=np.uint8)
    message = convert.error("retouch", source)
    assert "Topcon/TRAIN049/reference.mhd: the file is" in message
    assert "Topcon/TRAIN050/oct.raw: the file is" in message
    assert "TRAIN099/oct.mhd: does not belong" in message
    assert "Cirrus volumes: there must be 24, got 3" in message


def test_a_flat_volume_is_reported(source: Path, convert: Converter) -> None:
    flat = sitk.GetImageFromArray(np.zeros((16, 16), np.uint8))
    sitk.WriteImage(flat, str(source / "RETOUCH-TrainingSet-Topcon/TRAIN049/oct.mhd"))
    message = convert.error("retouch", source, "--incomplete", "--test", 3, "--training", 4)
    assert "TRAIN049" in message and "3 axes, got 2" in message


def test_too_many_slices_are_reported(source: Path, convert: Converter) -> None:
    assert "--test must be between 1 and 18" in convert.error("retouch", source, "--incomplete")


def test_too_many_labelled_slices_are_reported(source: Path, convert: Converter) -> None:
    words = ("--incomplete", "--test", 3, "--training", 4, "--labelled", 5)
    message = convert.error("retouch", source, *words)
    assert "--labelled must be between 1 and 4, got 5. Fix: lower --labelled" in message


def test_slices_are_evenly_spaced() -> None:
    slices = [("v", i) for i in range(10)]
    assert [z for _, z in space_evenly(slices, 5, "--test")] == [0, 2, 4, 6, 8]
    assert space_evenly(slices, 10, "--test") == slices
    with pytest.raises(UserError, match=r"must be between 1 and 10, got 11\. Fix: lower --test"):
        space_evenly(slices, 11, "--test")
