"""Tiny raw data sets of every format, ways to damage them, and what is found wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
import tifffile
from PIL import Image

from semi_nnunet.util.errors import Problem
from semi_nnunet.verify.integrity import check_dataset, find_dataset_problems

SHAPE = (6, 7, 8)


def voxels(seed: int, shape: tuple[int, ...] = SHAPE, dtype: Any = np.int16) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 1000, shape).astype(dtype)


def write(path: Path, array: np.ndarray, spacing: Any = (1.0, 1.0, 2.0), **geometry: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = sitk.GetImageFromArray(array)
    image.SetSpacing(spacing[: image.GetDimension()])
    image.SetOrigin(geometry.get("origin", (5.0, 6.0, 7.0))[: image.GetDimension()])
    if "direction" in geometry:
        image.SetDirection(geometry["direction"])
    sitk.WriteImage(image, str(path), True)


def write_nibabel(path: Path, array: np.ndarray, pixdim: Any = None) -> None:
    image = nib.Nifti1Image(array, np.diag([1, 1, 2, 1]))
    if pixdim is not None:
        image.header["pixdim"][1:4] = pixdim
        image.header["sform_code"] = 1
    nib.save(image, path)


def label(seed: int = 0) -> np.ndarray:
    return (voxels(seed) % 2).astype(np.uint8)


def describe(root: Path, **changes: Any) -> None:
    content = {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "organ": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
        **changes,
    }
    kept = {key: value for key, value in content.items() if value is not None}
    (root / "dataset.json").write_text(json.dumps(kept))


def make(root: Path, ending: str = ".nii.gz", channels: int = 1) -> Path:
    """Two labelled, two unlabelled and one test case."""
    cases = ("imagesTr/a", "imagesTr/b", "imagesUn/u", "imagesUn/v", "imagesTs/t")
    for number, case in enumerate(cases):
        for channel in range(channels):
            write(root / f"{case}_{channel:04d}{ending}", voxels(10 * number + channel))
    for case in "ab":
        write(root / f"labelsTr/{case}{ending}", label())
    describe(root, file_ending=ending, channel_names={str(k): "MR" for k in range(channels)})
    return root


def make_png(root: Path, depth: int = 3) -> Path:
    for number, case in enumerate(("imagesTr/a", "imagesTr/b", "imagesUn/u")):
        path = root / f"{case}_0000.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(voxels(number, (9, 8, depth), np.uint8)).save(path)
    (root / "labelsTr").mkdir()
    for case in "ab":
        Image.fromarray(voxels(1, (9, 8), np.uint8) % 2).save(root / f"labelsTr/{case}.png")
    describe(root, file_ending=".png", channel_names={"0": "R", "1": "G", "2": "B"})
    return root


def make_tif(root: Path, shape: tuple[int, ...]) -> Path:
    for number, name in enumerate(("imagesTr/a_0000", "imagesUn/u_0000", "labelsTr/a")):
        (root / name).parent.mkdir(exist_ok=True)
        array = voxels(number, shape) % (2 if name == "labelsTr/a" else 256)
        with tifffile.TiffWriter(root / f"{name}.tif") as tif:
            for page in array.astype(np.uint8).reshape(-1, *shape[-2:]):
                tif.write(page, contiguous=False, metadata=None)  # as libtiff and ImageJ
        if len(shape) == 3:
            sidecar = (root / name.removesuffix("_0000")).with_suffix(".json")
            sidecar.write_text('{"spacing": [2, 1, 1]}')
    describe(root, file_ending=".tif", numTraining=1)
    return root


def truncate(path: Path, keep: float) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep) if keep > 0 else int(keep)])


def flip_bit(path: Path, position: float) -> None:
    content = bytearray(path.read_bytes())
    content[int(len(content) * position)] ^= 16
    path.write_bytes(content)


def problems_in(root: Path) -> list[Problem]:
    return [problem for report in check_dataset(root, 1, False) for problem in report.problems]


def only_problem(root: Path, where: str) -> str:
    problems = problems_in(root)
    assert [problem.where for problem in problems] == [where], problems
    assert problems[0].fix
    return problems[0].what


def whole_problem(root: Path, where: str) -> str:
    problems = find_dataset_problems(root)
    assert [problem.where for problem in problems] == [where], problems
    return problems[0].what
