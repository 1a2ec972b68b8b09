"""Read, change and write the 3-D images of a conversion, their place in space included."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from semi_nnunet.raw.readers import BrokenFileError
from semi_nnunet.verify.file_bytes import require_complete_image


def place(source: Path, symlink: bool, target: Path) -> None:
    """Copy, or link to, a file that nnU-Net can use as it is."""
    if symlink:
        target.symlink_to(source.resolve())
    else:
        shutil.copyfile(source, target)


def read_volume(path: Path) -> sitk.Image:
    """Any image that SimpleITK reads."""
    return sitk.ReadImage(str(path))


def save_volume(image: sitk.Image, target: Path) -> None:
    """Write a compressed image."""
    sitk.WriteImage(image, str(target), True)
    require_complete_image(target)


def relabelled(label: sitk.Image, values: Mapping[int, int]) -> sitk.Image:
    """The label with every value replaced, 8 bits a voxel.

    Raises:
        BrokenFileError: it holds a value that ``values`` lacks.
    """
    old = sitk.GetArrayFromImage(label)
    foreign = np.setdiff1d(np.unique(old), list(values))
    if len(foreign):
        shown = ", ".join(f"{value:g}" for value in foreign[:10])
        what = f"label values must be of {sorted(values)}, got {shown}"
        raise BrokenFileError(what, "mend the label")
    new = np.zeros(old.shape, dtype=np.uint8)
    for before, after in values.items():
        new[old == before] = after
    image = sitk.GetImageFromArray(new)
    image.CopyInformation(label)
    return image


def relabel(source: Path, values: Mapping[int, int], target: Path) -> None:
    """Write a label whose values are replaced."""
    save_volume(relabelled(read_volume(source), values), target)


def resized_in_plane(image: sitk.Image, size: int, is_label: bool) -> sitk.Image:
    """The image with size x size voxels a slice; it covers the same space.

    Labels by nearest neighbour, images linearly.
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


def frame_of(image: sitk.Image, frame: int) -> sitk.Image:
    """One 3-D image of a 4-D one, numbered from 0.

    Raises:
        BrokenFileError: it has no such frame.
    """
    size = list(image.GetSize())
    if len(size) != 4 or not 0 <= frame < size[3]:
        what = f"must be 4-D with a frame {frame}, got the size {tuple(size)}"
        raise BrokenFileError(what, "correct the file, or the frame in the table")
    return sitk.Extract(image, [*size[:3], 0], [0, 0, 0, frame])


def from_array(array: np.ndarray, spacing_xyz_mm: Sequence[float]) -> sitk.Image:
    """An array (z, y, x) as an image at the origin."""
    image = sitk.GetImageFromArray(array)
    image.SetSpacing([float(size) for size in spacing_xyz_mm])
    return image
