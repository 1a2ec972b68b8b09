"""Slices of a case as pictures: the image, and layers with segmentations to lay over it.

One image serves every panel, and a layer has few colours and so a few kilobytes. Image and layers
fill a box of the physical size of the slice, so voxels keep their shape.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from semi_nnunet.reporting.contours import Classes, draw_layers
from semi_nnunet.util.greys import find_grey_window, greys

IMAGE_PIXELS = 400  # maximum of the longer side
MARGIN, LEAST_MARGIN = 0.35, 8  # around the segmentations: share of their size, and voxels
ANISOTROPIC = 2.0  # a spacing this many times the others is the one between slices


@dataclass(frozen=True)
class CaseDrawing:
    """An image and its segmentations, on the same voxels.

    Args:
        image: (C, Z, Y, X); three channels are shown as colours if ``colour``.
        labels: panel -> labels (Z, Y, X), with "reference", "method" and perhaps "baseline".
        spacing: of Z, Y and X.
        colour: the channels are red, green and blue.
        ignore: the label of voxels that do not count, or None.
    """

    image: np.ndarray
    labels: Mapping[str, np.ndarray]
    spacing: tuple[float, ...]
    colour: bool = False
    ignore: int | None = None


@dataclass(frozen=True)
class DrawnSlice:
    """One slice of a case as pictures.

    Args:
        number: of the slice, from 1.
        depth: number of slices of the case.
        ratio: physical width / height.
        image: PNG, or JPEG if it has colours.
        layers: panel -> transparent PNG.
        errors: number of voxels in which the method is wrong.
    """

    number: int
    depth: int
    ratio: float
    image: bytes
    layers: dict[str, bytes]
    errors: int


def draw_slices(
    case: CaseDrawing, classes: Classes, limit: int = 24, number: int | None = None
) -> list[DrawnSlice]:
    """Draw at most ``limit`` slices with foreground, along the axis of thick slices.

    Slice ``number`` (from 1) is drawn in any case.

    The layers are the reference, the contours of "baseline" and "method" over those of the
    reference, and "disagreement", where the method fixes or breaks the baseline, or both are wrong.
    """
    axis = find_slice_axis(case.spacing)
    image = np.moveaxis(case.image, axis + 1, 1)
    counts = case.labels["reference"] != case.ignore
    labels = {name: np.moveaxis(array * counts, axis, 0) for name, array in case.labels.items()}
    height, width = (size for i, size in enumerate(case.spacing) if i != axis)
    rows = columns = slice(None)
    if len(image[0]) > 1:
        rows, columns = find_region_of_interest(list(labels.values()))
    image = image[:, :, rows, columns]
    labels = {name: array[:, rows, columns] for name, array in labels.items()}
    window = find_grey_window(image[0], labels["reference"])
    size = (image.shape[2] * height, image.shape[3] * width)
    slices = []
    chosen = {*choose_slices(list(labels.values()), limit)} | {*([number - 1] if number else [])}
    for z in sorted(chosen):
        layers, errors = draw_layers({k: array[z] for k, array in labels.items()}, classes, size)
        picture = (
            encode_colour_slice(image[:, z])
            if case.colour
            else encode_grey_slice(image[0, z], window)
        )
        slices.append(DrawnSlice(z + 1, image.shape[1], size[1] / size[0], picture, layers, errors))
    return slices


def find_slice_axis(spacing: Sequence[float]) -> int:
    """Return the axis along which slices are thick, or else the first.

    >>> find_slice_axis((1.0, 5.0, 1.0))
    1
    """
    axis = int(np.argmax(spacing))
    largest_other = max(size for i, size in enumerate(spacing) if i != axis)
    return axis if spacing[axis] >= ANISOTROPIC * largest_other else 0


def choose_slices(labels: Sequence[np.ndarray], limit: int) -> list[int]:
    """Return evenly spread slices with foreground, or else the middle slice."""
    shown = np.flatnonzero(np.any([(array > 0).any((1, 2)) for array in labels], axis=0))
    if not len(shown):
        return [len(labels[0]) // 2]
    indices = np.linspace(0, len(shown) - 1, min(limit, len(shown))).round().astype(int)
    return [int(z) for z in shown[indices]]


def find_region_of_interest(labels: Sequence[np.ndarray]) -> tuple[slice, slice]:
    """Return the rows and columns with foreground in any slice and a margin, or all of them."""
    foreground = np.any([(array > 0).any(0) for array in labels], axis=0)
    box = []
    for along in (foreground.any(1), foreground.any(0)):
        indices = np.flatnonzero(along)
        low, high = (indices[0], indices[-1] + 1) if len(indices) else (0, len(along))
        margin = max(LEAST_MARGIN, int(MARGIN * (high - low)))
        box.append(slice(max(0, int(low) - margin), min(len(along), int(high) + margin)))
    return box[0], box[1]


# ---- the image ----


def encode_grey_slice(image: np.ndarray, window: tuple[float, float]) -> bytes:
    """Encode a slice (Y, X) as PNG."""
    return encode_picture(Image.fromarray((255 * greys(image, *window)).astype(np.uint8)), "PNG")


def encode_colour_slice(image: np.ndarray) -> bytes:
    """Encode a slice (3, Y, X) of values from 0 to 255 as JPEG, a tenth of the size of a PNG."""
    pixels = np.clip(np.moveaxis(image[:3], 0, -1), 0, 255).astype(np.uint8)
    return encode_picture(Image.fromarray(pixels), "JPEG")


def encode_picture(picture: Image.Image, file_format: str) -> bytes:
    """Return the bytes of a file, reduced to the number of pixels shown."""
    picture.thumbnail((IMAGE_PIXELS, IMAGE_PIXELS))
    file = io.BytesIO()
    picture.save(file, file_format, optimize=True)
    return file.getvalue()
