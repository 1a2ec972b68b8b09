"""nnU-Net's resampling of an image, axis after axis, in float32.

nnU-Net fits a cubic spline to the whole image in float64 and evaluates it at every voxel of the
other grid. Grids are parallel and the spline is a product of splines along the axes, so that a
matrix for each axis does the same: its columns are what nnU-Net's function makes of unit vectors.
That is a few matrix products instead of 64 neighbours for each voxel.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from skimage.transform import resize

from semi_nnunet.inference.resampling import neighbours, takes_nearest_planes

CUBIC = 3  # order of the spline


def resampled_image(
    data: np.ndarray,
    shape: Sequence[int],
    spacing: Sequence[float],
    target_spacing: Sequence[float],
    resample: Any,
) -> np.ndarray:
    """An image on another grid: nnU-Net's numbers but for rounding to float32.

    Args:
        data: (channels, z, y, x), float32.
        shape: (z, y, x) of the other grid.
        spacing, target_spacing: of both grids, in mm.
        resample: nnU-Net's function of the plans; one of somebody else's is called as it is.

    Returns:
        (channels, *shape), float32.
    """
    planes = takes_nearest_planes(resample, CUBIC, spacing, target_spacing)
    if planes is None:
        return np.asarray(resample(data, shape, spacing, target_spacing))
    shape = tuple(int(size) for size in shape)
    if data.shape[1:] == shape:
        return data
    result = np.empty((len(data), *shape), np.float32)
    for channel, out in zip(data, result, strict=True):
        image = torch.from_numpy(np.ascontiguousarray(channel, np.float32))
        found = along_axes(image, (image.shape[0] if planes else shape[0], *shape[1:]))
        limits = range_of(image, each_plane=planes)  # splines overshoot at edges
        found = torch.clamp(found, *limits)
        if planes:
            found = found[neighbours(image.shape[0], shape[0], nearest=True).indices[0]]
        torch.from_numpy(out).copy_(found)
    return result


def along_axes(image: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """The spline of an image (z, y, x) on a grid of another shape."""
    z, y, x = (
        None if size == target else torch.from_numpy(spline_matrix(size, target))
        for size, target in zip(image.shape, shape, strict=True)
    )
    if x is not None:
        image = image @ x.T
    if y is not None:
        image = y @ image
    if z is not None:
        image = (z @ image.reshape(len(image), -1)).view(-1, *image.shape[1:])
    return image


def range_of(image: torch.Tensor, each_plane: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """The least and the largest value, of the image or of each plane."""
    if each_plane:
        return image.amin((1, 2), keepdim=True), image.amax((1, 2), keepdim=True)
    return image.amin(), image.amax()


@lru_cache(16)  # the images of a data set have many sizes
def spline_matrix(size: int, target: int) -> np.ndarray:
    """(target, size) float32: what nnU-Net's function makes of each unit vector of an axis."""
    units = np.eye(size)
    how = {"mode": "edge", "anti_aliasing": False, "clip": False}
    return np.asarray(resize(units, (target, size), CUBIC, **how), np.float32)
