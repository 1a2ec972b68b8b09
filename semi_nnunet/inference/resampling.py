"""Resample images and logits to nnU-Net's numbers, in less memory and time.

Logits: nnU-Net resamples all classes of the whole image at once, in float64. Linear interpolation
needs two planes of logits for each plane of labels, so slabs are enough. In float64 the numbers are
nnU-Net's to the last bit.

Images: nnU-Net fits a cubic spline to the whole image in float64 and evaluates it at every voxel of
the other grid. Grids are parallel and the spline is a product of splines along the axes, so one
matrix per axis does the same: its columns are what nnU-Net's function makes of unit vectors. That
is a few matrix products instead of 64 neighbours for each voxel.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from skimage.transform import resize
from torch.nn import functional as F

from semi_nnunet.inference.sliding_window import Slab

LINEAR, CUBIC = 1, 3  # order of the spline of logits, of images
AT_A_TIME = 2**22  # values of all classes, about, that are resampled together


def match_spacing(
    spacing: Sequence[float], shape: Sequence[int], slice_spacing: float
) -> tuple[float, ...]:
    """Return a configuration's spacing in as many axes as the image has; 2-D keeps its slices'.

    >>> match_spacing((1.0, 1.0), shape=(8, 32, 32), slice_spacing=5.0)
    (5.0, 1.0, 1.0)
    """
    return (*(spacing if len(spacing) == len(shape) else (slice_spacing, *spacing)),)


def takes_nearest_planes(
    resample: Any, order: int, spacing: Sequence[float], target_spacing: Sequence[float]
) -> bool | None:
    """Return whether the nearest plane is taken instead of interpolating, as in thick slices.

    Args:
        resample: function of the plans; only nnU-Net's own with its planner's values is supported.
        order: of the spline that it must use.
        spacing, target_spacing: of both grids, in mm.

    Returns:
        True: along the first axis the nearest plane is taken; False: all axes are interpolated;
        None: another function, or another axis.
    """
    if not isinstance(resample, partial):
        return None
    options = dict(resample.keywords)
    force = options.pop("force_separate_z", False)
    expected = {"is_seg": False, "order": order, "order_z": 0}
    if resample.func is not resample_data_or_seg_to_shape or options != expected:
        return None
    separate, axis = determine_do_sep_z_and_axis(force, spacing, target_spacing)
    return None if separate and axis != 0 else bool(separate)


# ---- logits ----


@dataclass(frozen=True)
class GridPair:
    """The grids from which and to which logits are resampled, with axes as preprocessed.

    Args:
        shape: of the preprocessed image.
        target: of the image, cropped as nnU-Net crops it.
        spacing, target_spacing: of both, in mm.
        resample: nnU-Net's function of the plans.
        dtype: to interpolate in (nnU-Net: float64).
    """

    shape: tuple[int, ...]
    target: tuple[int, ...]
    spacing: tuple[float, ...]
    target_spacing: tuple[float, ...]
    resample: Any
    dtype: torch.dtype = torch.float64

    def resampled(self, slabs: Iterable[Slab]) -> Iterator[Slab]:
        """Yield slabs of the target grid, in order."""
        if self.shape == self.target:
            yield from slabs
            return
        spacings = self.spacing, self.target_spacing
        nearest = takes_nearest_planes(self.resample, LINEAR, *spacings)
        if nearest is None:  # the whole array, as in nnU-Net
            logits = torch.cat([slab.logits.cpu() for slab in slabs], 1)
            yield Slab(0, torch.as_tensor(self.resample(logits, self.target, *spacings)))
            return
        yield from self._by_planes(slabs, nearest)

    def _by_planes(self, slabs: Iterable[Slab], nearest: bool) -> Iterator[Slab]:
        """Yield target planes as soon as the planes between which they lie have arrived."""
        rule = find_neighbours(self.shape[0], self.target[0], nearest)
        buffer, first, finished = torch.empty(0), 0, 0
        for slab in slabs:
            buffer = torch.cat([buffer, slab.logits], 1) if len(buffer) else slab.logits
            ready = int(np.searchsorted(rule.upper, first + buffer.shape[1]))
            plane_size = len(buffer) * int(np.prod(self.target[1:]))
            for planes in split_range(finished, ready, max(1, AT_A_TIME // plane_size)):
                neighbours = Neighbours(
                    rule.lower[planes] - first, rule.upper[planes] - first, rule.share[planes]
                )
                yield Slab(planes.start, self._interpolated(buffer, neighbours))
            finished = ready
            if finished < self.target[0]:
                # the next target plane may lie beyond all planes that have arrived
                passed = min(int(rule.lower[finished]) - first, buffer.shape[1])
                buffer, first = buffer[:, passed:], first + passed

    def _interpolated(self, logits: torch.Tensor, between: Neighbours) -> torch.Tensor:
        """Return logits (classes, planes, *plane) on target planes."""
        if self.dtype == torch.float64:
            in_plane = map(find_neighbours, self.shape[1:], self.target[1:])
            corners = interpolate_corners(logits.double(), [between, *in_plane])
            return round_as_numpy(corners, logits.dtype)
        below, above = (logits[:, index].to(self.dtype) for index in between.indices)
        share = torch.from_numpy(between.share).to(logits.device, self.dtype)[:, None, None]
        planes = torch.lerp(below, above, share) if between.share.any() else below
        if planes.shape[2:] != self.target[1:]:
            planes = F.interpolate(planes, self.target[1:], mode="bilinear", align_corners=False)
        return planes.to(logits.dtype)


@dataclass(frozen=True)
class Neighbours:
    """The points of an axis between which the points of another grid lie.

    Args:
        lower, upper: (target,) indices.
        share: (target,) weight of the upper point.
    """

    lower: np.ndarray
    upper: np.ndarray
    share: np.ndarray

    @property
    def indices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Indices of the lower and the upper points."""
        return torch.from_numpy(self.lower), torch.from_numpy(self.upper)


def find_neighbours(size: int, target: int, nearest: bool = False) -> Neighbours:
    """Return the neighbours of each target point, with aligned edges as in skimage's resize.

    >>> find_neighbours(2, 4).share
    array([0.75, 0.25, 0.75, 0.25])

    Args:
        size: of the source axis.
        target: size of the target axis.
        nearest: take the nearest point instead of interpolating.
    """
    position = (np.arange(target) + 0.5) * (size / target) - 0.5
    if nearest:
        index = np.clip(np.floor(position + 0.5), 0, size - 1).astype(np.int64)
        return Neighbours(index, index, np.zeros(target))
    lower = np.floor(position)
    index = lower.astype(np.int64)  # beyond the edge both are the last point, as in scipy
    upper = np.clip(index + 1, 0, size - 1)
    return Neighbours(np.clip(index, 0, size - 1), upper, position - lower)


def interpolate_corners(values: torch.Tensor, axes: Sequence[Neighbours]) -> torch.Tensor:
    """Interpolate linearly with scipy's sums, ((v wz) wy) wx per corner, to the last bit.

    Args:
        values: (classes, z, y, x).
        axes: neighbours along z, y and x.
    """
    total: torch.Tensor | None = None
    for corner in itertools.product((False, True), repeat=len(axes)):
        if any(up and not axis.share.any() for up, axis in zip(corner, axes, strict=True)):
            continue  # of weight 0
        weighted = values
        for number, (up, axis) in enumerate(zip(corner, axes, strict=True), 1):
            weighted = weighted.index_select(number, axis.indices[up].to(values.device))
            weight = torch.from_numpy(axis.share if up else 1.0 - axis.share).to(weighted)
            weighted *= weight.view(-1, *[1] * (weighted.ndim - number - 1))
        total = weighted if total is None else total.add_(weighted)
    return values if total is None else total


def round_as_numpy(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Round float64 to ``dtype`` as numpy does; PyTorch rounds to float32 before float16."""
    if dtype != torch.float16:
        return values.to(dtype)
    return torch.from_numpy(values.cpu().numpy().astype(np.float16))


def split_range(start: int, stop: int, size: int) -> Iterator[slice]:
    """Yield slices of at most ``size`` from ``start`` to ``stop``."""
    for begin in range(start, stop, size):
        yield slice(begin, min(begin + size, stop))


# ---- images ----


def resample_image_to_grid(
    data: np.ndarray,
    shape: Sequence[int],
    spacing: Sequence[float],
    target_spacing: Sequence[float],
    resample: Any,
) -> np.ndarray:
    """Resample an image to another grid: nnU-Net's numbers but for rounding to float32.

    Args:
        data: (channels, z, y, x), float32.
        shape: (z, y, x) of the other grid.
        spacing, target_spacing: of both grids, in mm.
        resample: function of the plans; another one than nnU-Net's is called instead.

    Returns:
        (channels, *shape), float32.
    """
    by_planes = takes_nearest_planes(resample, CUBIC, spacing, target_spacing)
    if by_planes is None:
        return np.asarray(resample(data, shape, spacing, target_spacing))
    shape = tuple(int(size) for size in shape)
    if data.shape[1:] == shape:
        return data
    result = np.empty((len(data), *shape), np.float32)
    for channel, out in zip(data, result, strict=True):
        image = torch.from_numpy(np.ascontiguousarray(channel, np.float32))
        resampled = apply_spline(image, (image.shape[0] if by_planes else shape[0], *shape[1:]))
        axes = (1, 2) if by_planes else (0, 1, 2)
        limits = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
        resampled = torch.clamp(resampled, *limits)  # splines overshoot at edges
        if by_planes:
            nearest = find_neighbours(image.shape[0], shape[0], nearest=True)
            resampled = resampled[nearest.indices[0]]
        torch.from_numpy(out).copy_(resampled)
    return result


def apply_spline(image: torch.Tensor, shape: Sequence[int]) -> torch.Tensor:
    """Evaluate the spline of an image (z, y, x) on a grid of another shape."""
    z, y, x = (
        None if size == target else torch.from_numpy(make_spline_matrix(size, target))
        for size, target in zip(image.shape, shape, strict=True)
    )
    if x is not None:
        image = image @ x.T
    if y is not None:
        image = y @ image
    if z is not None:
        image = (z @ image.reshape(len(image), -1)).view(-1, *image.shape[1:])
    return image


@lru_cache(16)  # the images of a data set have many sizes
def make_spline_matrix(size: int, target: int) -> np.ndarray:
    """Return (target, size) float32: nnU-Net's resampling of each unit vector of an axis.

    >>> make_spline_matrix(4, 6).shape
    (6, 4)
    """
    options = {"mode": "edge", "anti_aliasing": False, "clip": False}
    return np.asarray(resize(np.eye(size), (target, size), CUBIC, **options), np.float32)
