"""nnU-Net's way of bringing logits to an image's own grid, for a few planes at a time.

nnU-Net resamples all classes of the whole image at once, in float64. Linear interpolation needs two
planes of logits for each plane of labels, so that slabs are enough. In float64 the numbers are
nnU-Net's to the last bit.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import torch
from nnunetv2.preprocessing.resampling.default_resampling import (
    determine_do_sep_z_and_axis,
    resample_data_or_seg_to_shape,
)
from torch.nn import functional as F

from semi_nnunet.inference.sliding_window import Slab

LINEAR = 1  # order of the spline of logits
AT_A_TIME = 2**22  # values of all classes, about, that are resampled together


@dataclass(frozen=True)
class Grids:
    """From which grid to which logits are resampled; the axes are those of preprocessed images.

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
        """Slabs of the target grid, in order."""
        if self.shape == self.target:
            yield from slabs
            return
        between = self.spacing, self.target_spacing
        nearest = takes_nearest_planes(self.resample, LINEAR, *between)
        if nearest is None:  # another function, or another axis: as nnU-Net does it, all at once
            logits = torch.cat([slab.logits.cpu() for slab in slabs], 1)
            whole = self.resample(logits, self.target, self.spacing, self.target_spacing)
            yield Slab(0, torch.as_tensor(whole))
            return
        yield from self._by_planes(slabs, nearest)

    def _by_planes(self, slabs: Iterable[Slab], nearest: bool) -> Iterator[Slab]:
        """Logits of target planes, as soon as the planes between which they lie are there."""
        rule = neighbours(self.shape[0], self.target[0], nearest)
        have, first, done = torch.empty(0), 0, 0
        for slab in slabs:
            have = torch.cat([have, slab.logits], 1) if len(have) else slab.logits
            ready = int(np.searchsorted(rule.upper, first + have.shape[1]))
            plane = len(have) * int(np.prod(self.target[1:]))
            for some in parts(done, ready, max(1, AT_A_TIME // plane)):
                here = Neighbours(
                    rule.lower[some] - first, rule.upper[some] - first, rule.share[some]
                )
                yield Slab(some.start, self._interpolated(have, here))
            done = ready
            if done < self.target[0]:
                have, first = have[:, rule.lower[done] - first :], int(rule.lower[done])

    def _interpolated(self, logits: torch.Tensor, between: Neighbours) -> torch.Tensor:
        """Logits (classes, planes, *plane) on target planes."""
        if self.dtype == torch.float64:
            in_plane = map(neighbours, self.shape[1:], self.target[1:])
            return rounded(weighted_corners(logits.double(), [between, *in_plane]), logits.dtype)
        below, above = (logits[:, index].to(self.dtype) for index in between.indices)
        share = torch.from_numpy(between.share).to(logits.device, self.dtype)[:, None, None]
        planes = torch.lerp(below, above, share) if between.share.any() else below
        if planes.shape[2:] != self.target[1:]:
            planes = F.interpolate(planes, self.target[1:], mode="bilinear", align_corners=False)
        return planes.to(logits.dtype)


def takes_nearest_planes(
    resample: Any, order: int, spacing: Sequence[float], target_spacing: Sequence[float]
) -> bool | None:
    """Whether planes are not interpolated with each other, as in thick slices.

    Args:
        resample: function of the plans. It is known of nnU-Net's own alone, with the values that
            its planner gives it.
        order: of the spline that it must use.
        spacing, target_spacing: of both grids, in mm.

    Returns:
        True: of the planes along the first axis the nearest one is taken; False: all axes are
        alike; None: it is another function, or another axis.
    """
    if not isinstance(resample, partial):
        return None
    options = dict(resample.keywords)
    force = options.pop("force_separate_z", False)
    wanted = {"is_seg": False, "order": order, "order_z": 0}
    if resample.func is not resample_data_or_seg_to_shape or options != wanted:
        return None
    separate, axis = determine_do_sep_z_and_axis(force, spacing, target_spacing)
    return None if separate and axis != 0 else bool(separate)


@dataclass(frozen=True)
class Neighbours:
    """Between which points of an axis the points of another grid lie.

    Args:
        lower, upper: (target,) indices.
        share: (target,) of the upper one.
    """

    lower: np.ndarray
    upper: np.ndarray
    share: np.ndarray

    @property
    def indices(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Of the lower and the upper points."""
        return torch.from_numpy(self.lower), torch.from_numpy(self.upper)


def neighbours(size: int, target: int, nearest: bool = False) -> Neighbours:
    """Where the points of an axis lie on another one, their edges aligned as by skimage's resize.

    Args:
        size: of the axis that is known.
        target: of the other axis.
        nearest: whether the nearest point alone counts.
    """
    at = (np.arange(target) + 0.5) * (size / target) - 0.5
    if nearest:
        index = np.clip(np.floor(at + 0.5), 0, size - 1).astype(np.int64)
        return Neighbours(index, index, np.zeros(target))
    lower = np.floor(at)
    index = lower.astype(np.int64)  # beyond the edge both are the last, as scipy's
    return Neighbours(np.clip(index, 0, size - 1), np.clip(index + 1, 0, size - 1), at - lower)


def weighted_corners(values: torch.Tensor, axes: Sequence[Neighbours]) -> torch.Tensor:
    """Linear interpolation with scipy's sums, ((v wz) wy) wx corner after corner, to the last bit.

    Args:
        values: (classes, z, y, x).
        axes: of the target, for z, y and x.
    """
    total: torch.Tensor | None = None
    for corner in itertools.product((False, True), repeat=len(axes)):
        if any(up and not axis.share.any() for up, axis in zip(corner, axes, strict=True)):
            continue  # of weight 0
        part = values
        for number, (up, axis) in enumerate(zip(corner, axes, strict=True), 1):
            part = part.index_select(number, axis.indices[up].to(values.device))
            weight = torch.from_numpy(axis.share if up else 1.0 - axis.share).to(part)
            part *= weight.view(-1, *[1] * (part.ndim - number - 1))
        total = part if total is None else total.add_(part)
    return values if total is None else total


def rounded(values: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """As numpy rounds float64 to float16; PyTorch rounds to float32 before."""
    if dtype != torch.float16:
        return values.to(dtype)
    return torch.from_numpy(values.cpu().numpy().astype(np.float16))


def parts(start: int, stop: int, size: int) -> Iterator[slice]:
    """Slices of at most ``size`` from ``start`` to ``stop``."""
    for at in range(start, stop, size):
        yield slice(at, min(at + size, stop))


def spacing_like(spacing: Sequence[float], shape: Sequence[int], own: float) -> tuple[float, ...]:
    """The spacing of a configuration in as many axes as the image has; slices keep their own."""
    return (*(spacing if len(spacing) == len(shape) else (own, *spacing)),)
