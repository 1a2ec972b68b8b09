"""Read, change and write the 3-D images of a conversion, with their position in space."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from semi_nnunet.raw.readers import BrokenFileError
from semi_nnunet.verify.file_bytes import require_complete_image


def copy_or_link(source: Path, symlink: bool, target: Path) -> None:
    """Copy a file that nnU-Net can use unchanged, or link to it."""
    if symlink:
        target.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, target)


def read_volume(path: Path) -> sitk.Image:
    """Read any image that SimpleITK supports."""
    return sitk.ReadImage(str(path))


def save_volume(image: sitk.Image, target: Path) -> None:
    """Write a compressed image."""
    sitk.WriteImage(image, str(target), True)
    require_complete_image(target)


def map_label_values(label: sitk.Image, values: Mapping[int, int]) -> sitk.Image:
    """Replace every value of a label; the result has 8 bits per voxel.

    Raises:
        BrokenFileError: the label has a value that is not in ``values``.
    """
    old = sitk.GetArrayFromImage(label)
    foreign = np.setdiff1d(np.unique(old), list(values))
    if len(foreign):
        shown = ", ".join(f"{value:g}" for value in foreign[:10])
        what = f"label values must be of {sorted(values)}, got {shown}"
        raise BrokenFileError(what, "correct the label")
    new = np.zeros(old.shape, dtype=np.uint8)
    for value, replacement in values.items():
        new[old == value] = replacement
    image = sitk.GetImageFromArray(new)
    image.CopyInformation(label)
    return image


def write_mapped_label(source: Path, values: Mapping[int, int], target: Path) -> None:
    """Write a label with replaced values."""
    save_volume(map_label_values(read_volume(source), values), target)


def resize_slices(image: sitk.Image, size: int, is_label: bool) -> sitk.Image:
    """Resize the slices of an image to size x size voxels of the same field of view.

    Labels are resampled by nearest neighbour, images linearly.
    """
    old = np.array(image.GetSize())
    new = np.array([size, size, old[2]])
    first = (0.5 * old / new - 0.5).tolist()  # centre of the first new voxel, in old voxels
    spacing = (np.array(image.GetSpacing()) * old / new).tolist()
    interpolator = sitk.sitkNearestNeighbor if is_label else sitk.sitkLinear
    edge = sitk.Cast(image, sitk.sitkFloat32) if not is_label else image
    return sitk.Resample(
        sitk.ZeroFluxNeumannPad(edge, [1, 1, 0], [1, 1, 0]),  # voxels at the edge need neighbours
        new.tolist(),
        sitk.Transform(),
        interpolator,
        image.TransformContinuousIndexToPhysicalPoint(first),
        spacing,
        image.GetDirection(),
    )


def extract_frame(image: sitk.Image, frame: int) -> sitk.Image:
    """Return a 3-D frame of a 4-D image, numbered from 0.

    Raises:
        BrokenFileError: the image has no such frame.
    """
    size = list(image.GetSize())
    if len(size) != 4 or not 0 <= frame < size[3]:
        what = f"must be 4-D with a frame {frame}, got the size {tuple(size)}"
        raise BrokenFileError(what, "correct the file, or the frame in the table")
    return sitk.Extract(image, [*size[:3], 0], [0, 0, 0, frame])


def make_volume(array: np.ndarray, spacing_xyz_mm: Sequence[float]) -> sitk.Image:
    """Make an image at the origin from an array (z, y, x)."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(size) for size in spacing_xyz_mm])
    return image
