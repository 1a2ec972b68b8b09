"""Segmentations of 3D Slicer (``CASE.seg.nrrd``): labels with names and colours of the classes.

Slicer saves a segmentation under its name, with its values. Of a plain label without a colour
table, it renumbers the values when it exports. The fields are those of Slicer's own files. The
reference geometry is written, too: without it, Slicer crops an exported label to the foreground.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK as sitk

from semi_nnunet.preprocessing.manifest import WrittenLabels
from semi_nnunet.raw.description import RawCase, RawDataset, list_files
from semi_nnunet.raw.readers import PLACED_ENDINGS, BrokenFileError
from semi_nnunet.reporting.label_tables import Colour, name_label_values
from semi_nnunet.util.errors import Problem

ENDING = ".seg.nrrd"
SEGMENTATIONS = "segmentations"  # usual name of their folder
NAME = "Segment{}_Name"
VALUE = "Segment{}_LabelValue"
GRID_TOLERANCE = 1e-3  # of a voxel


def write_segmentations(
    labels: Iterable[Path], description: Mapping[str, Any], folder: Path
) -> None:
    """Write the segmentations of labels of volumes, next to which a reviewer may work.

    A segmentation that was changed since it was written stays; one of earlier versions stays if it
    is newer than its label. Formats that hold no place of a voxel, such as PNG, and 2-D files have
    none.

    Args:
        labels: files of a format of the data set.
        description: content of dataset.json.
        folder: of the segmentations, which is made.
    """
    ending, named = description["file_ending"], name_label_values(description)
    if ending not in PLACED_ENDINGS:
        return
    volumes = [label for label in labels if count_dimensions(label) == 3]
    if volumes:
        folder.mkdir(exist_ok=True)
    written = WrittenLabels(folder)
    known, unchanged = written.read(), written.list_unchanged()
    for label in volumes:
        case = label.name.removesuffix(ending)
        out = folder / f"{case}{ENDING}"
        is_kept = out.is_file() and case not in unchanged
        if is_kept and case not in known:
            is_kept = out.stat().st_mtime_ns >= label.stat().st_mtime_ns
        if not is_kept:
            write_segmentation(label, named, out)
            written.record(case, out)


def count_dimensions(path: Path) -> int:
    """Return the number of axes of an image file, whose voxels are not read."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(path))
    reader.ReadImageInformation()
    return int(reader.GetDimension())


def write_segmentation(label: Path, named: Mapping[int, tuple[str, Colour]], out: Path) -> None:
    """Write a label of a volume as a segmentation of 3D Slicer.

    Args:
        label: a 3-D file that SimpleITK reads.
        named: value -> name and colour of its class.
        out: the file, which ends with :data:`ENDING`.
    """
    image = sitk.ReadImage(str(label))
    for key in image.GetMetaDataKeys():
        image.EraseMetaData(key)
    extent = [bound for size in image.GetSize() for bound in (0, size - 1)]
    matrix = np.eye(4)  # from voxels to RAS; the file itself is in LPS, as SimpleITK
    matrix[:3, :3] = np.reshape(image.GetDirection(), (3, 3)) * image.GetSpacing()
    matrix[:3, 3] = image.GetOrigin()
    numbers = [*(np.diag([-1.0, -1.0, 1.0, 1.0]) @ matrix).ravel().tolist(), *extent]
    geometry = ";".join(map(str, numbers))
    image.SetMetaData("Segmentation_MasterRepresentation", "Binary labelmap")
    image.SetMetaData("Segmentation_ReferenceImageExtentOffset", "0 0 0")
    image.SetMetaData(
        "Segmentation_ConversionParameters", f"Reference image geometry|{geometry};|&"
    )
    for place, (value, (name, colour)) in enumerate(sorted(named.items())):
        fields = {
            "ID": f"Segment_{value}",
            "Name": name,
            "LabelValue": str(value),
            "Layer": "0",
            "Tags": "|",
            "Color": " ".join(f"{channel / 255:.6f}" for channel in colour),
            "Extent": " ".join(map(str, extent)),
        }
        for key, text in fields.items():
            image.SetMetaData(f"Segment{place}_{key}", text)
    sitk.WriteImage(image, str(out), useCompression=True)


def read_segmentation(path: Path, values: Mapping[str, int], image: Path) -> sitk.Image:
    """Read a segmentation as a label of an image.

    Args:
        path: the segmentation, which may cover a part of the image.
        values: name of a class -> its value in labels.
        image: file whose grid the label gets.

    Returns:
        The label, int16.

    Raises:
        BrokenFileError: segments overlap, have unknown names, or lie on another grid.
    """
    try:
        stored, grid = sitk.ReadImage(str(path)), sitk.ReadImage(str(image))
    except RuntimeError as error:
        raise BrokenFileError("cannot be read", "save it again in 3D Slicer") from error
    if stored.GetNumberOfComponentsPerPixel() > 1 or stored.GetDimension() != grid.GetDimension():
        raise BrokenFileError(
            "has overlapping segments, or the dimensions of another image",
            "choose 'Allow overlap: No' in the Segment Editor, and save it again",
        )
    known = {name_of(stored, place): place for place in find_segments(stored)}
    if unknown := sorted(set(known) - set(values)):
        raise BrokenFileError(
            f"has the segments {', '.join(unknown)}; the classes are {', '.join(values)}",
            "rename the segments",
        )
    voxels = sitk.GetArrayFromImage(stored)
    label = np.zeros(voxels.shape, np.int16)
    for name, place in known.items():
        label[voxels == int(stored.GetMetaData(VALUE.format(place)))] = values[name]
    if extra := np.count_nonzero(voxels) - np.count_nonzero(label):
        raise BrokenFileError(f"has {extra} voxels of no segment", "save it again in 3D Slicer")
    result = sitk.GetImageFromArray(label)
    result.CopyInformation(stored)
    require_same_grid(result, grid)
    placed = sitk.Resample(result, grid, sitk.Transform(), sitk.sitkNearestNeighbor, 0)
    if lost := np.count_nonzero(label) - np.count_nonzero(sitk.GetArrayViewFromImage(placed)):
        raise BrokenFileError(f"has {lost} voxels outside of {image.name}", "remove them")
    return placed


def find_segments(image: sitk.Image) -> Iterator[int]:
    """Yield the numbers of the segments that a file describes."""
    place = 0
    while image.HasMetaDataKey(NAME.format(place)) and image.HasMetaDataKey(VALUE.format(place)):
        yield place
        place += 1


def name_of(image: sitk.Image, place: int) -> str:
    """Return the name of a segment."""
    return str(image.GetMetaData(NAME.format(place)))


def require_same_grid(label: sitk.Image, grid: sitk.Image) -> None:
    """Check that the voxels of a label are voxels of an image.

    Raises:
        BrokenFileError: they are not.
    """
    first = grid.TransformPhysicalPointToContinuousIndex(label.GetOrigin())
    axes = (grid.GetDimension(), grid.GetDimension())
    steps = np.reshape(label.GetDirection(), axes) * label.GetSpacing()
    expected = np.reshape(grid.GetDirection(), axes) * grid.GetSpacing()
    is_shifted = np.abs(np.array(first) - np.round(first)).max() > GRID_TOLERANCE
    if is_shifted or np.abs(steps - expected).max() > GRID_TOLERANCE * min(grid.GetSpacing()):
        raise BrokenFileError(
            f"has other voxels than the image: spacing {label.GetSpacing()}, expected "
            f"{grid.GetSpacing()}, origin {label.GetOrigin()}",
            "draw it on the image itself, or set the image as source geometry",
        )


def convert_segmentations(
    folder: Path, raw: RawDataset, converted: Path
) -> tuple[Path, list[Problem]]:
    """Convert the segmentations of a folder to labels.

    Args:
        folder: of the reviewed files.
        raw: the data set.
        converted: existing folder for the labels.

    Returns:
        The folder of the labels, which is ``folder`` if it holds no segmentation, and the problems.
    """
    names = list_files(folder)
    chosen = [name for name in names if name.endswith(ENDING)]
    if not chosen:
        return folder, []
    ending = raw.description["file_ending"]
    problems, images = list[Problem](), {case.case: case for case in raw.cases}
    for name in names:
        if name.endswith(ending) and name not in chosen:
            defect = "is a label next to segmentations of 3D Slicer"
            problems.append(Problem(str(folder / name), defect, "keep each kind in its own folder"))
    values = {name: value for value, (name, _) in name_label_values(raw.description).items()}
    for name in chosen:
        case = images.get(name.removesuffix(ENDING))
        problems += _convert(folder / name, case, values, converted, ending)
    return converted, problems


def name_segmentation(problem: Problem, converted: Path, given: Path, ending: str) -> Problem:
    """Name the segmentation in a problem of a label that was converted from it.

    Args:
        converted, given: folders of the labels and of the segmentations.
        ending: of the labels.
    """
    label = Path(problem.where)
    if converted == given or label.parent != converted:
        return problem
    return replace(problem, where=str(given / f"{label.name.removesuffix(ending)}{ENDING}"))


def _convert(
    path: Path, case: RawCase | None, values: Mapping[str, int], folder: Path, ending: str
) -> Iterator[Problem]:
    name = path.name.removesuffix(ENDING)
    if case is None:
        yield Problem(str(path), f"belongs to no case {name!r} of the data set", "correct its name")
        return
    try:
        label = read_segmentation(path, values, Path(case.images[0]))
    except BrokenFileError as error:
        yield Problem(str(path), str(error), error.fix)
        return
    sitk.WriteImage(label, str(folder / f"{name}{ending}"), useCompression=True)
