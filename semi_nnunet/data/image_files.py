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
from dataclasses import dataclass, replace
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
QUANTILES = (0.005, 0.05, 0.5, 0.95, 0.995)  # of an image's voxels, as they are in the file
SAMPLED_VOXELS = 200_000  # of a channel; 1000 of them lie outside of the outer quantiles
UNTOLD = "untold"  # in place of the sides: the file has no orientation, its reader makes one up
ALONG_AN_AXIS = 0.8  # the least direction cosine: 37 degrees; beyond, it runs between two axes
LPS, RAS = ("RL", "AP", "IS"), ("LR", "PA", "IS")  # a world's axes: towards its minus and plus


@dataclass(frozen=True)
class Geometry:
    """Where the voxels are; ``origin`` and ``direction`` are None for formats without them.

    Args:
        shape: in voxels, in the order in which nnU-Net reads an image: Z, Y, X.
        spacing: in mm, in the same order.
        origin: in mm, X, Y, Z, in the world of the reader: SimpleITK's is LPS, nibabel's RAS.
        direction: cosines of the axes X, Y, Z, one axis a column, row by row, in the same world.
        towards: of the patient, the side to which X, Y and Z run, such as "LPS"; "" if the format
            does not tell, or an axis runs between two of them; UNTOLD if the file does not, though
            its format could.
    """

    shape: tuple[int, ...]
    spacing: tuple[float, ...]
    origin: tuple[float, ...] | None = None
    direction: tuple[float, ...] | None = None
    towards: str = ""


@dataclass(frozen=True)
class FileFacts:
    """What a case needs to know of one of its files.

    Args:
        problems: empty if the file is fine.
        geometry: None if it cannot be read.
        channel_digests: of the voxels of each channel in the file.
        quantiles: of the voxels of each channel, at QUANTILES; () for labels and bad files.
        only_background: it is a label of 0 everywhere.
    """

    problems: tuple[Problem, ...]
    geometry: Geometry | None = None
    channel_digests: tuple[str, ...] = ()
    quantiles: tuple[tuple[float, ...], ...] = ()
    only_background: bool = False


def inspect_file(
    path: str,
    where: str,
    reader_class: Callable[[], Any],
    num_channels: int,
    label_values: Collection[int] | None = None,
    unknown_values: Collection[int] = (),
) -> FileFacts:
    """Check one file and report all that is wrong with it; never raises.

    Args:
        path: the file.
        where: how to call it in the report.
        reader_class: nnU-Net's reader of this data set.
        num_channels: channels of an image as ``dataset.json`` declares them.
        label_values: the values a label may hold; None if the file is an image.
        unknown_values: those of them that are of classes which this label does not annotate.
    """
    try:
        return _inspect(path, where, reader_class, num_channels, label_values, unknown_values)
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
    unknown_values: Collection[int],
) -> FileFacts:
    is_label = label_values is not None
    check_presence(path)
    raw = scan_raw(path)
    array, geometry, sitk_spacing = read_with_nnunet(path, reader_class, is_label)
    if not raw.oriented:
        geometry = replace(geometry, towards=UNTOLD)
    found = [
        channels_problem(array.shape, 1 if is_label else num_channels),
        spacing_problem([raw.spacing, sitk_spacing, geometry.spacing]),
        *voxel_problems(array, raw, is_label),
    ]
    if label_values is not None:
        found += [label_problem(array, label_values), unknown_problem(array, unknown_values)]
    digests = tuple(digest(channel) for channel in array)
    problems = tuple(Problem(where, *what_and_fix) for what_and_fix in found if what_and_fix)
    is_good_image = not is_label and not problems
    quantiles = tuple(quantiles_of(channel) for channel in array) if is_good_image else ()
    only_background = is_label and not problems and not array.any()
    return FileFacts(problems, geometry, digests, quantiles, only_background)


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
    geometry = _geometry(array.shape[1:], spacing, properties)
    return array, geometry, tuple(properties.get("sitk_stuff", {}).get("spacing", ())[:3])


def _geometry(
    shape: tuple[int, ...], spacing: tuple[float, ...], properties: dict[str, Any]
) -> Geometry:
    if stuff := properties.get("sitk_stuff"):
        n = len(stuff["origin"])  # 4 if the last axis holds channels, which have no place in space
        axes, origin = np.reshape(stuff["direction"], (n, n))[:3, :3], stuff["origin"][:3]
        towards = sides(axes, LPS)
    elif stuff := properties.get("nibabel_stuff"):
        turned = stuff.get("reoriented_affine", stuff["original_affine"])  # where they are read to
        affine = np.asarray(turned, dtype=float)
        with np.errstate(all="ignore"):
            axes = affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0)
        origin, towards = affine[:3, 3].tolist(), sides(axes, RAS)
    else:
        return Geometry(shape, spacing)
    return Geometry(shape, spacing, tuple(origin), tuple(axes.ravel().tolist()), towards)


def sides(axes: np.ndarray, world: Sequence[str]) -> str:
    """The side of the patient to which each axis of an image runs, such as "LPS".

    Args:
        axes: direction cosines, one axis of the image a column.
        world: LPS or RAS, the world in which they are given.

    Returns:
        "" if one axis runs between two sides.
    """
    found = ""
    for axis in axes.T:
        main = int(np.argmax(np.abs(axis)))
        if not abs(axis[main]) >= ALONG_AN_AXIS:  # NaN, too
            return ""
        found += world[main][int(axis[main] > 0)]
    return found


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


def unknown_problem(array: np.ndarray, unknown_values: Collection[int]) -> tuple[str, str] | None:
    """Voxels of classes that the case is said not to annotate."""
    if not (held := sorted({*np.unique(array).tolist()} & {*unknown_values})):
        return None
    shown = ", ".join(f"{value:g}" for value in held)
    what = "a label must hold none of the classes that 'annotated' in dataset.json leaves out for "
    return f"{what}its case, got {shown}", "add the class there, or set its voxels to 0"


def quantiles_of(channel: np.ndarray) -> tuple[float, ...]:
    """The QUANTILES of evenly spaced voxels of (Z, Y, X).

    Every so many of them, an odd number: an even one may divide the length of a row, and would
    then show the same few columns all over.
    """
    stride = max(1, channel.size // SAMPLED_VOXELS) | 1
    return tuple(np.quantile(channel.ravel()[::stride], QUANTILES).tolist())


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
