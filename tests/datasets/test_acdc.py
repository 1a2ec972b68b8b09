"""ACDC: end diastole and end systole of the published 70 / 10 / 20 patients."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from semi_nnunet.datasets import acdc
from tests.datasets.converting import (
    Converter,
    cases,
    counts,
    patients,
    read,
    subsets,
    write_volume,
)


@pytest.fixture(scope="module")
def download(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("source") / "ACDC"
    for i in range(1, 101):
        patient = root / "training" / f"patient{i:03d}"
        for frame in (1, 9):
            path = patient / f"{patient.name}_frame{frame:02d}"
            write_volume(path.with_name(f"{path.name}.nii.gz"), 100 * i + frame, shape=(2, 4, 5))
            label = path.with_name(f"{path.name}_gt.nii.gz")
            write_volume(label, labels=(0, 1, 2, 3), shape=(2, 4, 5))
        (patient / "Info.cfg").write_text("ED: 1\nES: 9\nGroup: DCM\nHeight: 184.0\n")
    write_volume(root / "training/patient001/patient001_4d.nii.gz", shape=(3, 2, 4, 5))
    return root


@pytest.fixture
def source(download: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(download, tmp_path / "ACDC"))


def test_patients_are_split_as_published(download: Path, convert: Converter) -> None:
    dataset = convert("acdc", download)
    images = counts(dataset)
    assert (images["imagesTr"], images["imagesVal"], images["imagesTs"]) == (140, 20, 40)
    assert {"patient002_ED", "patient002_ES"} < cases(dataset / "imagesVal")
    assert len(patients(dataset, "Tr")) == 70 and "patient099" in patients(dataset, "Tr")
    assert len(patients(dataset, "Val")) == 10 and len(patients(dataset, "Ts")) == 20
    lists = subsets(dataset)
    assert tuple(map(int, subsets(dataset))) == acdc.PUBLISHED  # with which recipes are checked
    assert set(lists) == {"6", "14", "28"}
    labelled = ("099", "038", "050", "100", "058", "021", "049")
    assert lists["14"] == [f"patient{p}_{phase}" for p in labelled for phase in ("ED", "ES")]
    frame = read(download / "training/patient099/patient099_frame09.nii.gz")
    np.testing.assert_array_equal(read(dataset / "imagesTr/patient099_ES_0000.nii.gz"), frame)
    assert set(np.unique(read(dataset / "labelsTr/patient099_ES.nii.gz"))) == {0, 1, 2, 3}


def test_labels_of_whole_patients_are_hidden(download: Path, convert: Converter) -> None:
    new = convert.split(convert("acdc", download), 6)
    assert cases(new / "labelsTr") == {
        f"patient{p}_{phase}" for p in ("099", "038", "050") for phase in ("ED", "ES")
    }
    assert counts(new)["imagesUn"] == 134


def test_missing_and_wrong_files_are_reported(source: Path, convert: Converter) -> None:
    training = source / "training"
    (training / "patient007/patient007_frame09_gt.nii.gz").unlink()
    (training / "patient008/Info.cfg").unlink()
    (training / "patient009/Info.cfg").write_text("ED: 1\n")
    (training / "patient010/Info.cfg").write_text("ED: 1\nES: 3\n")
    message = convert.error("acdc", source)
    assert "patient007_frame09_gt.nii.gz" in message
    assert "patient008/Info.cfg: the file is" in message
    assert "patient009/Info.cfg: must hold" in message
    assert "patient010_frame03.nii.gz" in message
