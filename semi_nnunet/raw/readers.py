"""nnU-Net's readers: choose one for a data set, and read the voxels and geometry of a file."""

from __future__ import annotations

import contextlib
import io
import itertools
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk
from nnunetv2.imageio.reader_writer_registry import determine_reader_writer_from_dataset_json

from semi_nnunet.raw.description import IMAGE_ENDINGS
from semi_nnunet.raw.layout import DATASET_JSON
from semi_nnunet.util.errors import Problem, UserError, shorten_reason

EXAMPLES_TRIED = 10  # files that nnU-Net chooses a reader by, as the first one may be the bad one
SPACING_RTOL = 1e-3  # between an image and its label
READER_SPACING_RTOL = 1e-5  # between the channels of a case: nnU-Net's readers refuse more
ORIGIN_TOLERANCE_VOXELS = 0.1
DIRECTION_TOLERANCE = 1e-3  # of a cosine: half a voxel at the end of an axis of 500 voxels
UNTOLD = "untold"  # orientation of a file without one; its reader makes one up
ALONG_AN_AXIS = 0.8  # least direction cosine (37 degrees); below, it runs between two axes
LPS, RAS = ("RL", "AP", "IS"), ("LR", "PA", "IS")  # a world's axes: towards its minus and plus
SPACING_APART = (".tif", ".tiff")  # of 3-D: CASE.json may hold it, else it is 1 mm
PLACED_ENDINGS = (".nii.gz", ".nii", ".nrrd", ".mha")  # of files with spacing, origin and direction
COPY_AGAIN = "copy or export the file again from its source"
ONE_PER_CHANNEL = "write one 2-D or 3-D image per channel: CASE_0000, CASE_0001, ..."


def get_spacing_file(path: str | Path, is_label: bool) -> Path:
    """Return the file that holds the spacing of a ``.tif``, and may not exist.

    >>> print(get_spacing_file("imagesTr/case_0000.tif", is_label=False))
    imagesTr/case.json
    """
    stem = Path(path).stem
    return Path(path).with_name(f"{stem if is_label else re.sub(r'_[0-9]{4}$', '', stem)}.json")


def find_spacing_file(path: str | Path, is_label: bool) -> Path | None:
    """Return the file that holds the spacing of an image or label, if there is one."""
    file = get_spacing_file(path, is_label)
    return file if Path(path).suffix in SPACING_APART and file.is_file() else None


def with_spacing_files(paths: Iterable[str | Path], is_label: bool) -> list[Path]:
    """Return images or labels, each after the file that holds its spacing, if there is one."""
    pairs = ((find_spacing_file(path, is_label), Path(path)) for path in paths)
    files = (file for pair in pairs for file in pair if file is not None)
    return list(dict.fromkeys(files))  # several channels may share one


class BrokenFileError(Exception):
    """A file that cannot be used at all.

    Args:
        defect: the broken rule and the value found; also the text of the error.
    """

    def __init__(self, defect: str, fix: str = COPY_AGAIN):
        super().__init__(defect)
        self.fix = fix


@dataclass(frozen=True)
class Geometry:
    """Place of an image's voxels; formats without origin and direction have None there.

    Args:
        shape: in voxels, in nnU-Net's order Z, Y, X.
        spacing: in mm, in the same order.
        origin: in mm, X, Y, Z, in the world of the reader: LPS for SimpleITK, RAS for nibabel.
        direction: cosines of the axes X, Y, Z, one axis a column, row by row, in the same world.
        towards: sides of the patient to which X, Y and Z run, such as "LPS". It is "" if the format
            has no orientation or an axis is oblique, and UNTOLD if only the file has none.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...] | None = None
    direction: tuple[float, ...] | None = None
    towards: str = ""


def choose_reader(description: dict[str, Any], files: Sequence[str]) -> type[Any]:
    """Return nnU-Net's reader for the first of the files that any of its readers can open.

    Raises:
        UserError: nnU-Net has no reader for the file ending.
    """
    existing = (file for file in files if os.path.isfile(file) and os.path.getsize(file))
    examples: list[str | None] = [*itertools.islice(existing, EXAMPLES_TRIED)]
    for example in [*examples, None]:
        printed = io.StringIO()  # nnU-Net prints tracebacks of the readers that do not fit
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
            try:
                return determine_reader_writer_from_dataset_json(
                    description, example_file=example, verbose=False
                )
            except RuntimeError:
                continue
    defect = f"nnU-Net has no reader for 'file_ending' {description['file_ending']!r}"
    fix = f"use {', '.join(IMAGE_ENDINGS[:-1])} or {IMAGE_ENDINGS[-1]}"
    raise UserError(f"{DATASET_JSON} cannot be used:", [Problem(DATASET_JSON, defect, fix)])


def read_with_nnunet(
    path: str, reader_class: Callable[[], Any], is_label: bool
) -> tuple[np.ndarray, Geometry, tuple[float, ...]]:
    """Return the voxels ``(C, Z, Y, X)``, the geometry, and SimpleITK's spacing.

    Raises:
        BrokenFileError: the reader cannot open the file, or the voxels are vectors.
    """
    reader = reader_class()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the readers print their complaints
            array, properties = reader.read_seg(path) if is_label else reader.read_images((path,))
    except Exception as error:
        reason = f"cannot be opened by {type(reader).__name__}: {shorten_reason(error)}"
        raise BrokenFileError(reason) from error
    spacing = tuple(float(value) for value in properties["spacing"])
    if array.ndim != 4 or len(spacing) != 3:
        shape = format_numbers(array.shape)
        defect = f"must hold one number per voxel in 2 or 3 dimensions, got {shape}"
        raise BrokenFileError(f"{defect} (a vector or 4-D image)", ONE_PER_CHANNEL)
    geometry = _read_geometry(array.shape[1:], spacing, properties)
    return array, geometry, tuple(properties.get("sitk_stuff", {}).get("spacing", ())[:3])


def _read_geometry(
    shape: tuple[int, ...], spacing: tuple[float, ...], properties: dict[str, Any]
) -> Geometry:
    if stuff := properties.get("sitk_stuff"):
        n = len(stuff["origin"])  # 4 if the last axis holds channels, which have no place in space
        axes, origin = np.eye(3), np.zeros(3)
        k = min(n, 3)  # 2 for a flat image, which lies in the plane z = 0
        axes[:k, :k] = np.reshape(stuff["direction"], (n, n))[:k, :k]
        origin[:k] = stuff["origin"][:k]
        towards = find_sides(axes, LPS)
    elif stuff := properties.get("nibabel_stuff"):
        reoriented = stuff.get("reoriented_affine", stuff["original_affine"])
        affine = np.asarray(reoriented, dtype=float)
        with np.errstate(all="ignore"):
            axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        origin, towards = affine[:3, 3].tolist(), find_sides(axes, RAS)
    else:
        return Geometry(shape, spacing)
    return Geometry(shape, spacing, tuple(origin), tuple(axes.ravel().tolist()), towards)


def read_header(path: Path) -> Geometry | None:
    """Read the place of an image's voxels without the voxels.

    Returns:
        In SimpleITK's world, and without the sides of the patient; None if SimpleITK cannot read
        the header.
    """
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return None
    shape, spacing = (values[::-1] for values in (reader.GetSize(), reader.GetSpacing()))
    return Geometry(shape, spacing, reader.GetOrigin(), reader.GetDirection())


def find_sides(axes: np.ndarray, world: Sequence[str]) -> str:
    """Return the sides of the patient to which the axes of an image run.

    >>> find_sides(np.diag([-1, -1, 1]), LPS)
    'RAS'

    Args:
        axes: direction cosines, one axis of the image a column.
        world: LPS or RAS, the world of the cosines.

    Returns:
        "" if an axis is oblique.
    """
    sides = ""
    for axis in axes.T:
        main = int(np.argmax(np.abs(axis)))
        if not abs(axis[main]) >= ALONG_AN_AXIS:  # also false for NaN
            return ""
        sides += world[main][int(axis[main] > 0)]
    return sides


def describe_geometry_difference(first: Geometry, second: Geometry, spacing_rtol: float) -> str:
    """Describe what differs beyond the tolerances, "" if nothing does.

    >>> thin, thick = Geometry((4, 8, 8), (2, 1, 1)), Geometry((4, 8, 8), (3, 1, 1))
    >>> describe_geometry_difference(thin, thick, spacing_rtol=1e-3)
    'spacing (2, 1, 1) instead of (3, 1, 1)'
    """
    origin_atol = ORIGIN_TOLERANCE_VOXELS * min(second.spacing)
    differences = [
        _describe_difference("shape", first.shape, second.shape, 0, 0),
        _describe_difference("spacing", first.spacing, second.spacing, spacing_rtol, 1e-8),
        _describe_difference("origin", first.origin, second.origin, 0, origin_atol),
        _describe_difference(
            "direction", first.direction, second.direction, 0, DIRECTION_TOLERANCE
        ),
    ]
    return "; ".join(filter(None, differences))


def find_misplaced_label(
    label: Geometry, image: Geometry, label_name: str, image_name: str
) -> Iterator[Problem]:
    """Yield a problem if a label does not lie on the voxels of its image."""
    if difference := describe_geometry_difference(label, image, SPACING_RTOL):
        message = f"label must lie on the voxels of {image_name}, but has {difference}"
        yield Problem(label_name, message, "resample the label to the image, or fix the headers")


def _describe_difference(
    name: str,
    first: Sequence[float] | None,
    second: Sequence[float] | None,
    rtol: float,
    atol: float,
) -> str:
    if first is None or second is None:
        return ""
    if len(first) == len(second) and np.allclose(first, second, rtol=rtol, atol=atol):
        return ""
    return f"{name} {format_numbers(first)} instead of {format_numbers(second)}"


def format_numbers(values: Sequence[float]) -> str:
    """Return numbers as a user writes them.

    >>> format_numbers([1.0, 0.5])
    '(1, 0.5)'
    """
    return "(" + ", ".join(f"{value:.6g}" for value in values) + ")"
