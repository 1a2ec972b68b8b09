"""LA: 80 / 20 cases, from UA-MT's h5 files or from the challenge's nrrd files."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.datasets import la2018
from semi_nnunet.datasets.lists import load_published_cases
from tests.datasets.converting import Converter, counts, read, subsets, write_volume

SHAPE_XYZ = (5, 4, 3)


def list_cases() -> list[str]:
    lists = load_published_cases("la2018")
    return [*lists["train"], *lists["test"]]


@pytest.fixture(scope="module")
def h5_source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    h5py = pytest.importorskip("h5py")
    root = tmp_path_factory.mktemp("LA")
    for i, case in enumerate(list_cases()):
        folder = root / "2018LA_Seg_Training Set" / case
        folder.mkdir(parents=True)
        rng = np.random.default_rng(i)
        with h5py.File(folder / "mri_norm2.h5", "w") as file:
            file["image"] = rng.normal(size=SHAPE_XYZ).astype(np.float32)
            file["label"] = rng.integers(0, 2, SHAPE_XYZ).astype(np.uint8)
    return root


def test_h5_files_become_volumes_with_their_spacing(h5_source: Path, convert: Converter) -> None:
    import h5py

    dataset = convert("la2018", h5_source)
    assert counts(dataset) == {"imagesTr": 80, "labelsTr": 80, "imagesTs": 20, "labelsTs": 20}
    case = "06SR5RBREL16DQ6M8LWS"
    path = h5_source / "2018LA_Seg_Training Set" / case / "mri_norm2.h5"
    with h5py.File(path) as file:
        image, label = np.asarray(file["image"]), np.asarray(file["label"])
    image_file = sitk.ReadImage(str(dataset / f"imagesTr/{case}_0000.nii.gz"))
    assert image_file.GetSize() == SHAPE_XYZ
    assert image_file.GetSpacing() == pytest.approx([0.625] * 3)
    np.testing.assert_array_equal(sitk.GetArrayFromImage(image_file), image.transpose(2, 1, 0))
    np.testing.assert_array_equal(
        read(dataset / f"labelsTr/{case}.nii.gz"), label.transpose(2, 1, 0)
    )
    assert (dataset / "imagesTs/ZQPMJ4XEC5A4BISD45P1_0000.nii.gz").is_file()


def test_the_first_cases_are_labelled(h5_source: Path, convert: Converter) -> None:
    dataset = convert("la2018", h5_source)
    lists = subsets(dataset)
    assert tuple(map(int, subsets(dataset))) == la2018.PUBLISHED  # with which recipes are checked
    assert set(lists) == {"4", "8", "16"}
    assert lists["4"] == sorted(list_cases()[:80])[:4] == lists["16"][:4]
    assert counts(convert.split(dataset, 8))["imagesUn"] == 72


def test_nrrd_files_of_the_challenge_are_converted(tmp_path: Path, convert: Converter) -> None:
    root = tmp_path / "LA"
    for i, case in enumerate(list_cases()):
        folder = root / "Training Set" / case
        write_volume(folder / "lgemri.nrrd", i, shape=(3, 4, 5), dtype=np.uint8)
        write_volume(folder / "laendo.nrrd", labels=(0, 255), shape=(3, 4, 5), dtype=np.uint8)
    write_volume(folder / "lawall.nrrd", labels=(0, 255), dtype=np.uint8)
    dataset = convert("la2018", root)
    label = read(dataset / "labelsTr/06SR5RBREL16DQ6M8LWS.nii.gz")
    np.testing.assert_array_equal(label, np.resize((0, 1), (3, 4, 5)))
    (folder / "laendo.nrrd").unlink()
    assert f"{folder.name}/laendo.nrrd: the file is" in convert.error("la2018", root)


def test_a_missing_case_is_reported(tmp_path: Path, convert: Converter) -> None:
    message = convert.error("la2018", tmp_path / "absent")
    assert "is no folder" in message
    (tmp_path / "LA/06SR5RBREL16DQ6M8LWS").mkdir(parents=True)
    (tmp_path / "LA/06SR5RBREL16DQ6M8LWS/mri_norm2.h5").write_text("")
    message = convert.error("la2018", tmp_path / "LA")
    assert "0RZDK210BSMWAA6467LU/mri_norm2.h5" in message and "and 49 more" in message


def test_a_missing_h5py_is_reported_with_a_fix(
    h5_source: Path, convert: Converter, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "h5py", None)
    assert "pip install semi_nnunet[convert]" in convert.error("la2018", h5_source)


def test_a_broken_file_is_reported_and_nothing_is_written(
    h5_source: Path, convert: Converter, monkeypatch: pytest.MonkeyPatch
) -> None:
    case = h5_source / "2018LA_Seg_Training Set/06SR5RBREL16DQ6M8LWS/mri_norm2.h5"
    content = case.read_bytes()
    case.write_bytes(content[: len(content) // 4])
    try:
        message = convert.error("la2018", h5_source)
    finally:
        case.write_bytes(content)
    assert "06SR5RBREL16DQ6M8LWS/mri_norm2.h5: cannot be converted" in message
