"""Checks of one image or label file: is it whole, and can its voxels and geometry be used?

It is read by nnU-Net's own reader, so what is checked is what training would see; the bytes, which
the readers trust too much, are checked first.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from semi_nnunet.data.file_bytes import (
    COPY_AGAIN,
    ONE_PER_CHANNEL,
    BrokenFileError,
    RawScan,
    check_presence,
    plain,
    scan_raw,
    short_reason,
)
from semi_nnunet.util.errors import Problem

MAX_ABS_VALUE = 1e30  # its square, needed for the z-score, overflows float32
MIN_SPACING = 1e-4  # below, resampling would allocate absurd arrays
SPACING_RTOL = 1e-3  # between an image and its label
READER_SPACING_RTOL = 1e-5  # between the channels of a case: nnU-Net's readers refuse more
ORIGIN_TOLERANCE_VOXELS = 0.1
DIRECTION_TOLERANCE = (
    1e-3  # of a direction cosine; moves the end of a 500-voxel axis by half a voxel
)


@dataclass(frozen=True)
class Geometry:
    """Where the voxels are; ``origin`` and ``direction`` are None for formats without them."""

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...] | None = None
    direction: tuple[float, ...] | None = None


@dataclass(frozen=True)
class FileFacts:
    """What a case needs to know of one of its files; ``geometry`` is None if it cannot be read."""

    problems: tuple[Problem, ...]
    geometry: Geometry | None = None
    channel_digests: tuple[str, ...] = ()


def inspect_file(
    path: str,
    where: str,
    reader_class: Callable[[], Any],
    num_channels: int,
    label_values: Collection[int] | None = None,
) -> FileFacts:
    """Check one file and report all that is wrong with it; never raises.

    Args:
        path: the file.
        where: how to call it in the report.
        reader_class: nnU-Net's reader of this data set.
        num_channels: channels of an image as ``dataset.json`` declares them.
        label_values: the values a label may hold; None if the file is an image.
    """
    try:
        return _inspect(path, where, reader_class, num_channels, label_values)
    except BrokenFileError as error:
        return FileFacts((Problem(where, str(error), error.fix),))
    except Exception as error:  # one strange file must not end the check of the others
        return FileFacts((Problem(where, f"cannot be checked: {short_reason(error)}", COPY_AGAIN),))


def _inspect(
    path: str,
    where: str,
    reader_class: Callable[[], Any],
    num_channels: int,
    label_values: Collection[int] | None,
) -> FileFacts:
    is_label = label_values is not None
    check_presence(path)
    raw = scan_raw(path)
    array, geometry, sitk_spacing = read_with_nnunet(path, reader_class, is_label)
    found = [
        channels_problem(array.shape, 1 if is_label else num_channels),
        spacing_problem([raw.spacing, sitk_spacing, geometry.spacing]),
        *voxel_problems(array, raw, is_label),
    ]
    if label_values is not None:
        found.append(label_problem(array, label_values))
    digests = tuple(digest(channel) for channel in array)
    problems = tuple(Problem(where, *what_and_fix) for what_and_fix in found if what_and_fix)
    return FileFacts(problems, geometry, digests)


def read_with_nnunet(
    path: str, reader_class: Callable[[], Any], is_label: bool
) -> tuple[np.ndarray, Geometry, tuple[float, ...]]:
    """Return the voxels ``(C, Z, Y, X)``, the geometry and the spacing as SimpleITK has it.

    Raises:
        BrokenFileError: the reader cannot open the file, or the voxels are vectors.
    """
    reader = reader_class()
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # the readers print their complaints
            array, properties = reader.read_seg(path) if is_label else reader.read_images((path,))
    except Exception as error:
        reason = f"cannot be opened by {type(reader).__name__}: {short_reason(error)}"
        raise BrokenFileError(reason) from error
    spacing = tuple(float(value) for value in properties["spacing"])
    if array.ndim != 4 or len(spacing) != 3:
        what = f"must hold one number per voxel in 2 or 3 dimensions, got {plain(array.shape)}"
        raise BrokenFileError(f"{what} (a vector or 4-D image)", ONE_PER_CHANNEL)
    origin, direction, sitk_spacing = _origin_and_direction(properties)
    return array, Geometry(array.shape[1:], spacing, origin, direction), sitk_spacing


def _origin_and_direction(properties: dict[str, Any]) -> tuple[Any, Any, tuple[float, ...]]:
    if stuff := properties.get("sitk_stuff"):
        n = len(stuff["origin"])  # 4 if the last axis holds channels, which have no place in space
        direction = np.reshape(stuff["direction"], (n, n))[:3, :3].ravel().tolist()
        return tuple(stuff["origin"][:3]), tuple(direction), tuple(stuff["spacing"][:3])
    if stuff := properties.get("nibabel_stuff"):
        affine = np.asarray(stuff["original_affine"], dtype=float)
        with np.errstate(all="ignore"):
            axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        return tuple(affine[:3, 3].tolist()), tuple(axes.ravel().tolist()), ()
    return None, None, ()


def channels_problem(shape: tuple[int, ...], num_channels: int) -> tuple[str, str] | None:
    """A file holds one channel, or all (colour), or an equal share of them."""
    if num_channels % shape[0] == 0:
        return None
    what = f"holds {shape[0]} channels (4-D, colour or alpha), at most {num_channels} wanted"
    return what, f"{ONE_PER_CHANNEL}; or declare the channels in dataset.json"


def spacing_problem(spacings: Sequence[Sequence[float]]) -> tuple[str, str] | None:
    """The first spacing that cannot be real."""
    for spacing in spacings:
        if not all(math.isfinite(size) and size > 0 for size in spacing):
            return f"spacing must be finite and above 0, got {plain(spacing)}", "mend the header"
        if any(size < MIN_SPACING for size in spacing):
            what = f"spacing must be at least {MIN_SPACING:g}, got {plain(spacing)}"
            return what, "mend the header, or give the spacing in a smaller unit"
    return None


def voxel_problems(array: np.ndarray, raw: RawScan, is_label: bool) -> list[tuple[str, str]]:
    """NaN, Inf, huge values and, in images, nothing but one value."""
    if infinite := finite_problem(array, raw, is_label):
        return [infinite]
    low, high = float(array.min()), float(array.max())
    if max(-low, high) > MAX_ABS_VALUE:
        what = f"values must be within +-{MAX_ABS_VALUE:g}, got {low:g} to {high:g}"
        return [(what, "mend the values: normalisation would overflow")]
    if low == high and not is_label:
        return [(f"all voxels are {low:g}", "replace the image, or remove the case")]
    return []


def finite_problem(array: np.ndarray, raw: RawScan, is_label: bool) -> tuple[str, str] | None:
    """NaN and Inf, in the voxels or in the bytes of which a reader made 0."""
    nans, infs = raw.nans, raw.infs
    if not (math.isfinite(array.min()) and math.isfinite(array.max())):
        nans = max(nans, int(np.isnan(array).sum()))
        infs = max(infs, int(np.isinf(array).sum()))
    if not (nans or infs):
        return None
    what = f"voxels must be finite numbers in float32, got {nans} NaN and {infs} Inf"
    if is_label:
        return what, "replace them by the label of what is there, such as 0 for the background"
    return what, "replace them by a number that means 'nothing here', such as the minimum"


def label_problem(array: np.ndarray, label_values: Collection[int]) -> tuple[str, str] | None:
    """Values that ``dataset.json`` does not declare, fractions and negative numbers among them.

    NaN and Inf are for :func:`finite_problem`.
    """
    declared = sorted(label_values)
    strange = np.unique(array[~np.isin(array, declared)])
    strange = strange[np.isfinite(strange)]
    if len(strange) == 0:
        return None
    shown = ", ".join(f"{value:g}" for value in strange[:10]) + (
        ", ..." if len(strange) > 10 else ""
    )
    fix = "mend the label, or declare the values"
    if (strange < 0).any() or (strange % 1 != 0).any():
        return f"label values must be whole, from 0, and one of {declared}, got {shown}", fix
    return f"label values must be declared in dataset.json ({declared}), got {shown}", fix


def digest(array: np.ndarray) -> str:
    """sha256 of shape and values, whatever the file's type and compression."""
    values = np.ascontiguousarray(array, dtype=np.float32)
    hashed = hashlib.sha256(f"{array.shape}".encode())
    hashed.update(values.data)
    return hashed.hexdigest()


def geometry_difference(one: Geometry, other: Geometry, spacing_rtol: float) -> str:
    """What differs beyond the tolerances, such as ``"spacing (1, 1, 2) instead of (1, 1, 1)"``."""
    origin_atol = ORIGIN_TOLERANCE_VOXELS * min(other.spacing)
    parts = [
        _difference("shape", one.shape, other.shape, 0, 0),
        _difference("spacing", one.spacing, other.spacing, spacing_rtol, 1e-8),
        _difference("origin", one.origin, other.origin, 0, origin_atol),
        _difference("direction", one.direction, other.direction, 0, DIRECTION_TOLERANCE),
    ]
    return "; ".join(part for part in parts if part)


def _difference(
    name: str,
    one: Sequence[float] | None,
    other: Sequence[float] | None,
    rtol: float,
    atol: float,
) -> str:
    if one is None or other is None:
        return ""
    if len(one) == len(other) and np.allclose(one, other, rtol=rtol, atol=atol):
        return ""
    return f"{name} {plain(one)} instead of {plain(other)}"
