"""Checks of one image or label file: is it complete, and are voxels and geometry usable?

nnU-Net's own reader reads the file, so the checks see the voxels that a training
would see. The bytes, which readers trust too much, are checked first.
"""

from __future__ import annotations

import base64
import hashlib
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from semi_nnunet.raw.readers import (
    COPY_AGAIN,
    ONE_PER_CHANNEL,
    UNTOLD,
    BrokenFileError,
    Geometry,
    format_numbers,
    read_with_nnunet,
)
from semi_nnunet.util.errors import Problem, shorten_reason
from semi_nnunet.verify.file_bytes import RawScan, check_presence, scan_raw

MAX_ABS_VALUE = 1e30  # its square, needed for the z-score, overflows float32
MIN_SPACING = 1e-4  # below, resampling would allocate absurd arrays
QUANTILES = (0.005, 0.05, 0.5, 0.95, 0.995)  # of an image's voxels, as they are in the file
SAMPLED_VOXELS = 200_000  # of a channel; 1000 of them lie outside of the outer quantiles


@dataclass(frozen=True)
class FileFacts:
    """Result of the check of one file.

    Args:
        problems: empty if the file is fine.
        channel_digests: of the voxels of each channel in the file.
        quantiles: of the voxels of each channel, at QUANTILES; () for labels and bad files.
        only_background: whether it is a label that is 0 everywhere.
        thumbnail: of an image, see :func:`make_thumbnail`; "" for labels and bad files.
    """

    problems: tuple[Problem, ...]
    geometry: Geometry | None = None
    channel_digests: tuple[str, ...] = ()
    quantiles: tuple[tuple[float, ...], ...] = ()
    only_background: bool = False
    thumbnail: str = ""


def inspect_file(
    path: str,
    report_name: str,
    reader_class: Callable[[], Any],
    num_channels: int,
    label_values: Collection[int] | None = None,
    unknown_values: Collection[int] = (),
) -> FileFacts:
    """Check one file and return all its problems; never raise.

    Args:
        report_name: its name in the report.
        num_channels: number of channels that ``dataset.json`` declares for an image.
        label_values: values that a label may hold; None for an image.
        unknown_values: the label values of classes that this label does not annotate.
    """
    try:
        return _inspect(path, report_name, reader_class, num_channels, label_values, unknown_values)
    except BrokenFileError as error:
        return FileFacts((Problem(report_name, str(error), error.fix),))
    except Exception as error:  # one unusual file must not stop the check of the others
        return FileFacts(
            (Problem(report_name, f"cannot be checked: {shorten_reason(error)}", COPY_AGAIN),)
        )


def _inspect(
    path: str,
    report_name: str,
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
    whats_and_fixes = [
        find_channel_problem(array.shape, 1 if is_label else num_channels, is_label),
        find_spacing_problem([raw.spacing, sitk_spacing, geometry.spacing]),
        find_voxel_problem(array, raw, is_label),
    ]
    if label_values is not None:
        whats_and_fixes += [
            find_label_value_problem(array, label_values),
            find_unannotated_value_problem(array, unknown_values),
        ]
    digests = tuple(digest_voxels(channel) for channel in array)
    problems = tuple(Problem(report_name, *texts) for texts in whats_and_fixes if texts)
    is_good_image = not is_label and not problems
    quantiles = tuple(compute_quantiles(channel) for channel in array) if is_good_image else ()
    only_background = is_label and not problems and not array.any()
    thumbnail = make_thumbnail(array[0]) if is_good_image else ""
    return FileFacts(problems, geometry, digests, quantiles, only_background, thumbnail)


# Each check returns the problem's text and its fix, or None.


def find_channel_problem(
    shape: tuple[int, ...], num_channels: int, is_label: bool
) -> tuple[str, str] | None:
    """Check that a file holds one channel, all channels (colour), or an equal share of them."""
    if num_channels % shape[0] == 0:
        return None
    defect = f"holds {shape[0]} channels (4-D, colour or alpha), at most {num_channels} wanted"
    if is_label:
        return defect, "save it with one number for each class, in grey or palette mode"
    return defect, f"{ONE_PER_CHANNEL}; or declare the channels in dataset.json"


def find_spacing_problem(spacings: Sequence[Sequence[float]]) -> tuple[str, str] | None:
    """Check that every spacing is finite, positive and not absurdly small."""
    for spacing in spacings:
        if not all(math.isfinite(size) and size > 0 for size in spacing):
            return (
                f"spacing must be finite and above 0, got {format_numbers(spacing)}",
                "fix the header",
            )
        if any(size < MIN_SPACING for size in spacing):
            defect = f"spacing must be at least {MIN_SPACING:g}, got {format_numbers(spacing)}"
            return defect, "fix the header, or give the spacing in a smaller unit"
    return None


def find_voxel_problem(array: np.ndarray, raw: RawScan, is_label: bool) -> tuple[str, str] | None:
    """Check for NaN, Inf and huge values, and that an image has more than one value."""
    if infinite := find_non_finite_problem(array, raw, is_label):
        return infinite
    low, high = float(array.min()), float(array.max())
    if max(-low, high) > MAX_ABS_VALUE:
        defect = f"values must be within +-{MAX_ABS_VALUE:g}, got {low:g} to {high:g}"
        return defect, "correct the values: normalisation would overflow"
    if low == high and not is_label:
        return f"all voxels are {low:g}", "replace the image, or remove the case"
    return None


def find_non_finite_problem(
    array: np.ndarray, raw: RawScan, is_label: bool
) -> tuple[str, str] | None:
    """Check for NaN and Inf, also in bytes that the reader replaced by 0."""
    nans, infs = raw.nans, raw.infs
    if not (math.isfinite(array.min()) and math.isfinite(array.max())):
        nans = max(nans, int(np.isnan(array).sum()))
        infs = max(infs, int(np.isinf(array).sum()))
    if not (nans or infs):
        return None
    defect = f"voxels must be finite numbers in float32, got {nans} NaN and {infs} Inf"
    if is_label:
        return defect, "replace them by the right label, such as 0 for the background"
    return defect, "replace them by a number that means 'nothing here', such as the minimum"


def find_label_value_problem(
    array: np.ndarray, label_values: Collection[int]
) -> tuple[str, str] | None:
    """Check that a label holds only declared values; NaN and Inf are reported elsewhere."""
    declared = sorted(label_values)
    unknown = np.unique(array[~np.isin(array, declared)])
    unknown = unknown[np.isfinite(unknown)]
    if len(unknown) == 0:
        return None
    shown = ", ".join(f"{value:g}" for value in unknown[:10])
    shown += ", ..." if len(unknown) > 10 else ""
    fix = "correct the label, or declare the values"
    if {*unknown} == {255} and 1 in declared:
        fix = "write 1 instead of 255, or the number of another class"
    elif len(unknown) > 10:
        fix = "is this an image? Put the label here, with one number for each class"
    if (unknown < 0).any() or (unknown % 1 != 0).any():
        return f"label values must be whole, from 0, and one of {declared}, got {shown}", fix
    return f"label values must be declared in dataset.json ({declared}), got {shown}", fix


def find_unannotated_value_problem(
    array: np.ndarray, unknown_values: Collection[int]
) -> tuple[str, str] | None:
    """Check that a label holds no class that its case does not annotate."""
    if not (present := sorted({*np.unique(array).tolist()} & {*unknown_values})):
        return None
    shown = ", ".join(f"{value:g}" for value in present)
    defect = (
        "a label must hold none of the classes that 'annotated' in dataset.json leaves out for "
    )
    return f"{defect}its case, got {shown}", "add the class there, or set its voxels to 0"


def compute_quantiles(channel: np.ndarray) -> tuple[float, ...]:
    """Return the QUANTILES of evenly spaced voxels of a channel (Z, Y, X).

    The stride is odd: an even one may divide the length of a row and would then sample only a few
    columns.
    """
    stride = max(1, channel.size // SAMPLED_VOXELS) | 1
    return tuple(np.quantile(channel.ravel()[::stride], QUANTILES).tolist())


def compute_block_weights(length: int, blocks: int) -> np.ndarray:
    """Return the share (blocks, length) of each voxel of an axis in the mean of each block.

    >>> compute_block_weights(3, 2).astype(float).round(2).tolist()
    [[0.67, 0.33, 0.0], [0.0, 0.33, 0.67]]
    """
    edges, voxels = np.linspace(0, length, blocks + 1), np.arange(length)
    ends = np.minimum(edges[1:, None], voxels + 1)
    overlap = np.maximum(ends - np.maximum(edges[:-1, None], voxels), 0)
    return (overlap / overlap.sum(1, keepdims=True)).astype(np.float32)


def make_thumbnail(channel: np.ndarray) -> str:
    """Return a small grey picture of a channel (Z, Y, X): means of blocks, as text.

    It has 24 x 24 values for a flat image, and 8 x 12 x 12 otherwise.
    """
    size = (1, 24, 24) if channel.shape[0] == 1 else (8, 12, 12)
    small = channel.astype(np.float32, copy=False)
    for axis in (2, 1, 0):
        weights = compute_block_weights(small.shape[axis], size[axis])
        small = np.moveaxis(np.tensordot(small, weights, (axis, 1)), -1, axis)
    low, high = float(small.min()), float(small.max())
    grey = (small - low) * (255 / max(high - low, 1e-12))
    return base64.b64encode(grey.round().astype(np.uint8).tobytes()).decode()


def digest_voxels(array: np.ndarray) -> str:
    """Return the SHA-256 of shape and values, whatever the file's voxel type and compression."""
    values = np.ascontiguousarray(array, dtype=np.float32)
    hashed = hashlib.sha256(f"{array.shape}".encode())
    hashed.update(values.data)
    return hashed.hexdigest()
