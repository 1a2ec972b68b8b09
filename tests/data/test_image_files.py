"""A file with unusable voxels or geometry is named, whatever its format."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from nnunetv2.imageio.natural_image_reader_writer import NaturalImage2DIO
from nnunetv2.imageio.nibabel_reader_writer import NibabelIO, NibabelIOWithReorient
from nnunetv2.imageio.simpleitk_reader_writer import SimpleITKIO
from PIL import Image

from semi_nnunet.raw.readers import UNTOLD
from semi_nnunet.verify import image_files
from tests.data.raw_datasets import (
    SHAPE,
    describe,
    label,
    make,
    make_png,
    only_problem,
    problems_in,
    truncate,
    voxels,
    write,
    write_nibabel,
)


@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
@pytest.mark.parametrize(
    ("value", "text"), [(np.nan, "1 NaN"), (-np.inf, "1 Inf"), (1e38, "1e+30")]
)
def test_a_voxel_that_breaks_normalisation_is_named(
    tmp_path: Path, ending: str, value: float, text: str
) -> None:
    root, array = make(tmp_path, ending), voxels(2, dtype=np.float32)
    array[1, 2, 3] = value
    write(root / f"imagesUn/u_0000{ending}", array)
    assert text in only_problem(root, f"imagesUn/u_0000{ending}")


@pytest.mark.parametrize("value", [0, 7])
def test_a_constant_image_is_named(data: Path, value: int) -> None:
    write(data / "imagesUn/u_0000.nii.gz", np.full(SHAPE, value, np.int16))
    assert f"all voxels are {value}" in only_problem(data, "imagesUn/u_0000.nii.gz")


@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_a_4d_image_is_named(tmp_path: Path, ending: str) -> None:
    root = make(tmp_path, ending)
    write_nibabel(root / f"imagesUn/u_0000{ending}", voxels(0, (6, 7, 8, 5)))
    assert only_problem(root, f"imagesUn/u_0000{ending}")


def test_a_4d_image_with_all_declared_channels_is_accepted(data: Path) -> None:
    describe(data, channel_names={"0": "T1", "1": "T2"})
    for name in ("imagesTr/a", "imagesTr/b", "imagesUn/u", "imagesUn/v", "imagesTs/t"):
        array = voxels(ord(name[-1]), (8, 7, 6, 2))
        write_nibabel(data / f"{name}_0000.nii.gz", array)
    for case in "ab":
        write_nibabel(data / f"labelsTr/{case}.nii.gz", (voxels(0, (8, 7, 6)) % 2).astype(np.uint8))
    assert problems_in(data) == []


def test_a_vector_image_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, ".mha")
    image = sitk.GetImageFromArray(voxels(0, (*SHAPE, 3)), isVector=True)
    sitk.WriteImage(image, str(root / "imagesUn/u_0000.mha"))
    assert "vector" in only_problem(root, "imagesUn/u_0000.mha")


def test_a_png_with_alpha_is_named_when_three_channels_are_declared(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    Image.fromarray(voxels(5, (9, 8, 4), np.uint8)).save(root / "imagesUn/u_0000.png")
    assert "4 channels" in only_problem(root, "imagesUn/u_0000.png")


def test_a_broken_png_is_named(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    truncate(root / "imagesUn/u_0000.png", 0.5)
    assert "cannot be opened" in only_problem(root, "imagesUn/u_0000.png")


def test_a_crash_of_the_check_is_reported_as_a_problem_of_the_file(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original: Callable[[str], Any] = image_files.scan_raw

    def crash(path: str) -> Any:
        if path.endswith("u_0000.nii.gz"):
            raise MemoryError("out of memory")
        return original(path)

    monkeypatch.setattr(image_files, "scan_raw", crash)
    assert "out of memory" in only_problem(data, "imagesUn/u_0000.nii.gz")


# ---- spacing ----


@pytest.mark.parametrize("pixdim", [(0, 1, 1), (1, -2, 1), (1, np.nan, 1), (1e-6, 1, 1)])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_an_impossible_spacing_is_named(tmp_path: Path, ending: str, pixdim: Any) -> None:
    root = make(tmp_path, ending)
    write_nibabel(root / f"imagesUn/u_0000{ending}", voxels(0), pixdim)
    assert "spacing" in only_problem(root, f"imagesUn/u_0000{ending}")


def test_a_negative_spacing_in_mha_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, ".mha")
    path = root / "imagesUn/u_0000.mha"
    path.write_bytes(path.read_bytes().replace(b"Spacing = 1 1 2", b"Spacing = 1 -1 2"))
    assert "spacing" in only_problem(root, "imagesUn/u_0000.mha")


# ---- what a file is like ----


def facts_of(path: Path, reader: Any, channels: int = 1) -> image_files.FileFacts:
    return image_files.inspect_file(str(path), path.name, reader, channels)


def test_quantiles_are_those_of_all_voxels(data: Path) -> None:
    array = voxels(3, (20, 30, 40), np.float32)
    write(data / "imagesUn/u_0000.nii.gz", array)
    facts = facts_of(data / "imagesUn/u_0000.nii.gz", SimpleITKIO)
    expected = np.quantile(array, (0.005, 0.05, 0.5, 0.95, 0.995))
    np.testing.assert_allclose(facts.quantiles, [expected])


def test_quantiles_of_a_large_image_sample_all_columns() -> None:
    columns = np.tile(np.arange(512.0), (4, 512, 1))  # 5 voxels for each that is looked at
    expected = np.quantile(columns, image_files.QUANTILES)
    for depth in (1, 2, 3, 4):
        found = image_files.compute_quantiles(columns[:depth])
        np.testing.assert_allclose(found, expected, atol=5)


def test_each_channel_of_a_picture_has_quantiles(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    facts = facts_of(root / "imagesUn/u_0000.png", NaturalImage2DIO, channels=3)
    array = np.asarray(Image.open(root / "imagesUn/u_0000.png"), float).reshape(-1, 3)
    np.testing.assert_allclose(facts.quantiles, np.quantile(array, image_files.QUANTILES, 0).T)


def test_labels_and_bad_files_have_no_quantiles(data: Path) -> None:
    path = data / "imagesUn/u_0000.nii.gz"
    write(path, np.full(SHAPE, np.nan, np.float32))
    assert facts_of(path, SimpleITKIO).quantiles == ()
    facts = image_files.inspect_file(str(data / "labelsTr/a.nii.gz"), "", SimpleITKIO, 1, {0, 1})
    assert facts.problems == facts.quantiles == ()


HALF = np.sqrt(0.5)


@pytest.mark.parametrize(
    ("direction", "towards"),
    [
        ((1, 0, 0, 0, 1, 0, 0, 0, 1), "LPS"),
        ((-1, 0, 0, 0, -1, 0, 0, 0, 1), "RAS"),
        ((0, 0, 1, 1, 0, 0, 0, 1, 0), "PSL"),
        ((0.9, -np.sqrt(0.19), 0, np.sqrt(0.19), 0.9, 0, 0, 0, 1), "LPS"),
        ((HALF, -HALF, 0, HALF, HALF, 0, 0, 0, 1), ""),  # oblique
    ],
)
def test_the_sides_of_the_axes_are_read(
    data: Path, direction: tuple[float, ...], towards: str
) -> None:
    path = data / "imagesUn/u_0000.nii.gz"
    write(path, voxels(1), direction=direction)
    for reader in (SimpleITKIO, NibabelIO):
        geometry = facts_of(path, reader).geometry
        assert geometry is not None and geometry.towards == towards
    if towards:
        geometry = facts_of(path, NibabelIOWithReorient).geometry
        assert geometry is not None and geometry.towards == "RAS"


@pytest.mark.parametrize("codes", [(0, 0), (1, 0), (0, 1)])
def test_nifti_without_qform_and_sform_has_no_orientation(
    data: Path, codes: tuple[int, int]
) -> None:
    path = data / "imagesUn/u_0000.nii.gz"
    image = nib.Nifti1Image(voxels(1), None)
    image.header.set_qform(np.eye(4), codes[0])
    image.header.set_sform(np.eye(4), codes[1])
    nib.save(image, path)
    geometry = facts_of(path, SimpleITKIO).geometry
    assert geometry is not None
    assert (geometry.towards == UNTOLD) == (codes == (0, 0))
    assert problems_in(data) == []


def test_a_picture_has_no_orientation(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    geometry = facts_of(root / "imagesUn/u_0000.png", NaturalImage2DIO, channels=3).geometry
    assert geometry is not None and geometry.towards == "" and geometry.origin is None


# ---- labels ----


@pytest.mark.parametrize("value", [2, 0.5, -1, np.nan])
def test_a_label_value_that_is_not_declared_is_named(data: Path, value: float) -> None:
    array = label().astype(np.float32)
    array[0, 0, 0] = value
    write(data / "labelsTr/a.nii.gz", array)
    text = "NaN" if np.isnan(value) else f"got {value:g}"
    assert text in only_problem(data, "labelsTr/a.nii.gz")


@pytest.mark.parametrize(
    ("values", "word"), [([0, 255], "write 1 instead of 255"), (range(60), "image")]
)
def test_the_fix_names_the_usual_causes(data: Path, values: Sequence[int], word: str) -> None:
    array = np.resize(np.array(values, np.uint8), SHAPE)
    write(data / "labelsTr/a.nii.gz", array)
    (problem,) = problems_in(data)
    assert word in problem.fix


def test_an_empty_label_is_no_problem(data: Path) -> None:
    path = data / "labelsTr/a.nii.gz"
    for value in (0, 1):
        write(path, np.full(SHAPE, value, np.uint8))
        assert problems_in(data) == []
        facts = image_files.inspect_file(str(path), "", SimpleITKIO, 1, {0, 1})
        assert facts.only_background == (value == 0)


def test_a_png_label_with_colours_is_named(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    shutil.copy(root / "imagesTr/a_0000.png", root / "labelsTr/a.png")
    problems = problems_in(root)
    assert {problem.where for problem in problems} == {"labelsTr/a.png"}
    assert "3 channels" in problems[0].what and "one number for each class" in problems[0].fix
