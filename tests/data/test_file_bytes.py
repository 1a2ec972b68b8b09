"""A missing, incomplete or damaged file is named before a reader opens it."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tifffile

from semi_nnunet.util.errors import disk_error_message
from semi_nnunet.verify.file_bytes import require_complete_image
from semi_nnunet.verify.integrity import check_dataset
from tests.data.raw_datasets import (
    SHAPE,
    flip_bit,
    make,
    make_tif,
    only_problem,
    problems_in,
    truncate,
    voxels,
    write,
    write_nibabel,
)


@pytest.mark.parametrize("keep", [0.5, 0.99, -8])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_truncated_file_is_named(tmp_path: Path, ending: str, keep: float) -> None:
    root = make(tmp_path, ending)
    truncate(root / f"imagesUn/v_0000{ending}", keep)
    assert only_problem(root, f"imagesUn/v_0000{ending}")
    assert [report.content_hash for report in check_dataset(root, 1, False)][3] is None


@pytest.mark.parametrize("position", [0.3, 0.6, 0.9])
@pytest.mark.parametrize("ending", [".nii.gz", ".mha", ".nrrd"])
def test_a_flipped_bit_in_a_compressed_file_is_named(
    tmp_path: Path, ending: str, position: float
) -> None:
    root = make(tmp_path, ending)
    write(root / f"imagesUn/u_0000{ending}", voxels(2, (20, 20, 20)))
    flip_bit(root / f"imagesUn/u_0000{ending}", position)
    assert only_problem(root, f"imagesUn/u_0000{ending}")


def test_a_truncated_gipl_is_named(tmp_path: Path) -> None:
    root = make(tmp_path, ".gipl")
    assert problems_in(root) == []
    truncate(root / "imagesUn/v_0000.gipl", 0.9)
    assert "truncated" in only_problem(root, "imagesUn/v_0000.gipl")


@pytest.mark.parametrize("keep", [0.5, 0.9])
def test_a_truncated_tif_is_named(tmp_path: Path, keep: float) -> None:
    root = make_tif(tmp_path, (6, 90, 80))
    truncate(root / "imagesUn/u_0000.tif", keep)
    assert only_problem(root, "imagesUn/u_0000.tif")


def test_a_tif_of_which_nnunet_reads_the_first_image_only_is_named(tmp_path: Path) -> None:
    root = make_tif(tmp_path, (6, 90, 80))
    image = root / "imagesUn/u_0000.tif"
    stack = tifffile.imread(image)
    with tifffile.TiffWriter(image) as tif:
        for page in stack:
            tif.write(page, contiguous=False)
    assert "6 separate images" in only_problem(root, "imagesUn/u_0000.tif")
    tifffile.imwrite(image, stack)
    assert problems_in(root) == []


def test_a_truncated_label_is_named(data: Path) -> None:
    truncate(data / "labelsTr/b.nii.gz", 0.5)
    assert "truncated" in only_problem(data, "labelsTr/b.nii.gz")


def test_an_empty_file_is_named(data: Path) -> None:
    (data / "imagesTr/a_0000.nii.gz").write_bytes(b"")
    assert "0 bytes" in only_problem(data, "imagesTr/a_0000.nii.gz")


def test_a_dangling_link_is_named(data: Path) -> None:
    (data / "imagesUn/u_0000.nii.gz").unlink()
    (data / "imagesUn/u_0000.nii.gz").symlink_to("nowhere.nii.gz")
    assert "nowhere.nii.gz" in only_problem(data, "imagesUn/u_0000.nii.gz")


@pytest.mark.parametrize(
    ("put", "found"),
    [
        (os.mkfifo, "a pipe"),
        (lambda path: path.symlink_to("/dev/zero"), "a pipe"),
        (Path.mkdir, "a folder"),
        (lambda path: path.symlink_to(path.name), "not exist"),
    ],
    ids=["pipe", "endless device", "folder", "link to itself"],
)
@pytest.mark.parametrize("name", ["imagesUn/u_0000.nii.gz", "labelsTr/a.nii.gz"])
def test_pipes_devices_and_folders_are_named_at_once(
    data: Path, name: str, put: Callable[[Path], None], found: str
) -> None:
    (data / name).unlink()
    put(data / name)
    assert found in only_problem(data, name)


@pytest.mark.parametrize(
    "content",
    [b"<html>404</html>" * 40, b"x", gzip.compress(b"hello")],
    ids=["page", "byte", "gzip"],  # a gzip file holds the second, and xdist's workers compare names
)
@pytest.mark.parametrize("ending", [".nii.gz", ".nii", ".mha", ".nrrd"])
def test_a_file_that_is_no_image_is_named(tmp_path: Path, ending: str, content: bytes) -> None:
    root = make(tmp_path, ending)
    (root / f"imagesTr/a_0000{ending}").write_bytes(content)
    what = only_problem(root, f"imagesTr/a_0000{ending}")
    assert "\n" not in what
    assert "Traceback" not in what


def test_an_rgb_nifti_is_named(data: Path) -> None:
    rgb = np.zeros(SHAPE, np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]))
    write_nibabel(data / "imagesUn/u_0000.nii.gz", rgb)
    assert "RGB" in only_problem(data, "imagesUn/u_0000.nii.gz")


@pytest.mark.parametrize("keep", [0, 0.5, 0.99, -8])
@pytest.mark.parametrize("ending", [".nii.gz", ".nii"])
def test_an_incomplete_written_image_is_a_disk_error(
    tmp_path: Path, ending: str, keep: float
) -> None:
    path = make(tmp_path, ending) / f"imagesUn/v_0000{ending}"
    require_complete_image(path)
    truncate(path, keep)
    with pytest.raises(OSError, match="did not take") as error:
        require_complete_image(path)
    assert disk_error_message(error.value) and error.value.filename == str(path)
