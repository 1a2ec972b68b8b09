"""Slices of a case as pictures: the image, and what was drawn on it, as a layer to lay over it.

Layers are apart from the image, so that one image serves every panel; a few colours, so that a
layer is a few kilobytes. Voxels keep their shape: both are shown in the same box, of the physical
size of the slice.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from semi_nnunet.report.contours import Classes, draw_layers
from semi_nnunet.util.greys import greys

IMAGE_PIXELS = 400  # at most, of the longer side
MARGIN, LEAST_MARGIN = 0.35, 8  # around what is drawn: of its size, and in voxels
ANISOTROPIC = 2.0  # a spacing that much above the others is the one between slices


@dataclass(frozen=True)
class CaseDrawing:
    """A case and what was drawn on it, on the same voxels.

    Args:
        image: (C, Z, Y, X); three channels are shown as colours if ``colour``.
        labels: panel -> labels (Z, Y, X); "reference" is among them, "baseline" may be.
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
        depth: of how many slices.
        ratio: physical width / height.
        image: PNG, or JPEG if it has colours.
        layers: panel -> transparent PNG.
        wrong: voxels in which the method is wrong.
    """

    number: int
    depth: int
    ratio: float
    image: bytes
    layers: dict[str, bytes]
    wrong: int


def draw_slices(drawn: CaseDrawing, classes: Classes, limit: int = 24) -> list[DrawnSlice]:
    """At most ``limit`` slices on which something is drawn, along the axis of thick slices.

    Layers are: the reference; the contours of "baseline" and "method" over the reference's; and
    "disagreement", where the method mended the baseline, broke it, or both are wrong.
    """
    axis = find_slice_axis(drawn.spacing)
    image = np.moveaxis(drawn.image, axis + 1, 1)
    counts = drawn.labels["reference"] != drawn.ignore
    labels = {name: np.moveaxis(array * counts, axis, 0) for name, array in drawn.labels.items()}
    height, width = (size for i, size in enumerate(drawn.spacing) if i != axis)
    whole = (slice(None), slice(None))
    box = find_region_of_interest(list(labels.values())) if len(image[0]) > 1 else whole
    image = image[:, :, box[0], box[1]]
    labels = {name: array[:, box[0], box[1]] for name, array in labels.items()}
    window = find_grey_window(image)
    size = (image.shape[2] * height, image.shape[3] * width)
    found = []
    for z in choose_slices(list(labels.values()), limit):
        here = {name: array[z] for name, array in labels.items()}
        layers, wrong = draw_layers(here, classes, size)
        picture = (
            encode_colour_slice(image[:, z])
            if drawn.colour
            else encode_grey_slice(image[0, z], window)
        )
        found.append(DrawnSlice(z + 1, image.shape[1], size[1] / size[0], picture, layers, wrong))
    return found


def find_slice_axis(spacing: Sequence[float]) -> int:
    """The axis along which slices are thick; the first if there is none."""
    axis = int(np.argmax(spacing))
    others = max(size for i, size in enumerate(spacing) if i != axis)
    return axis if spacing[axis] >= ANISOTROPIC * others else 0


def choose_slices(labels: Sequence[np.ndarray], limit: int) -> list[int]:
    """Evenly spread ones of those with any foreground; the middle one if there is none."""
    shown = np.flatnonzero(np.any([(array > 0).any((1, 2)) for array in labels], axis=0))
    if not len(shown):
        return [len(labels[0]) // 2]
    places = np.linspace(0, len(shown) - 1, min(limit, len(shown))).round().astype(int)
    return [int(z) for z in shown[places]]


def find_region_of_interest(labels: Sequence[np.ndarray]) -> tuple[slice, slice]:
    """Rows and columns of what is drawn on any slice, with a margin; all if nothing is."""
    drawn = np.any([(array > 0).any(0) for array in labels], axis=0)
    box = []
    for along in (drawn.any(1), drawn.any(0)):
        found = np.flatnonzero(along)
        low, high = (found[0], found[-1] + 1) if len(found) else (0, len(along))
        margin = max(LEAST_MARGIN, int(MARGIN * (high - low)))
        box.append(slice(max(0, int(low) - margin), min(len(along), int(high) + margin)))
    return box[0], box[1]


# ---- the image ----


def find_grey_window(image: np.ndarray) -> tuple[float, float]:
    """Find the values shown black and white, without the outermost ones of (C, Z, Y, X)."""
    low, high = np.percentile(image[0], (0.5, 99.5))
    return float(low), float(high)


def encode_grey_slice(image: np.ndarray, window: tuple[float, float]) -> bytes:
    """A slice (Y, X) as PNG."""
    return encode_picture(Image.fromarray((255 * greys(image, *window)).astype(np.uint8)), "PNG")


def encode_colour_slice(image: np.ndarray) -> bytes:
    """A slice (3, Y, X) of values from 0 to 255 as JPEG; a photograph as PNG is ten times that."""
    pixels = np.clip(np.moveaxis(image[:3], 0, -1), 0, 255).astype(np.uint8)
    return encode_picture(Image.fromarray(pixels), "JPEG")


def encode_picture(picture: Image.Image, kind: str) -> bytes:
    """The file's bytes; made smaller if it has more pixels than are shown."""
    picture.thumbnail((IMAGE_PIXELS, IMAGE_PIXELS))
    file = io.BytesIO()
    picture.save(file, kind, optimize=True)
    return file.getvalue()
