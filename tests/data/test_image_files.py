"""A file whose voxels or geometry cannot be used is named, whatever its format."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import SimpleITK as sitk
from PIL import Image

from semi_nnunet.data import image_files
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


def test_a_4d_image_that_holds_all_declared_channels_is_accepted_as_nnunet_does(data: Path) -> None:
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


def test_a_crash_of_the_check_becomes_a_problem_of_the_file(
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


# ---- labels ----


@pytest.mark.parametrize("value", [2, 0.5, -1, np.nan])
def test_a_label_value_that_is_not_declared_is_named(data: Path, value: float) -> None:
    array = label().astype(np.float32)
    array[0, 0, 0] = value
    write(data / "labelsTr/a.nii.gz", array)
    text = "NaN" if np.isnan(value) else f"got {value:g}"
    assert text in only_problem(data, "labelsTr/a.nii.gz")


def test_an_empty_label_is_no_problem(data: Path) -> None:
    write(data / "labelsTr/a.nii.gz", np.zeros(SHAPE, np.uint8))
    assert problems_in(data) == []


def test_a_png_label_with_colours_is_named(tmp_path: Path) -> None:
    root = make_png(tmp_path)
    shutil.copy(root / "imagesTr/a_0000.png", root / "labelsTr/a.png")
    problems = problems_in(root)
    assert {problem.where for problem in problems} == {"labelsTr/a.png"}
    assert "3 channels" in problems[0].what
