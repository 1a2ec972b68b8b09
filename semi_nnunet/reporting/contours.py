"""Layers to lay over a slice: contours of every class, and disagreement of two segmentations."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageColor
from scipy.ndimage import binary_dilation, binary_erosion

Classes = Mapping[str, tuple[int, ...]]  # name of the class or region -> its values
Layer = np.ndarray  # (H, W), indices of colours in PALETTE

# The colours are safe for colour blindness and stand out on grey. Classes are never blue or orange,
# which mean better and worse.
CLASS_COLOURS = ("#f0e442", "#f0479b", "#00b385", "#a586ff", "#c08a3e", "#ffa8bd")
FIXED, BROKEN, WRONG = "#56b4e9", "#d55e00", "#f2f2f2"
NOTHING, HALO, WHITE, FIRST_CLASS = 0, 1, 2, 3
FIRST_FILL = FIRST_CLASS + len(CLASS_COLOURS)
FIRST_ERROR = FIRST_FILL + len(CLASS_COLOURS)  # fixed, broken, wrong
PALETTE: tuple[tuple[str, float], ...] = (  # colour and opacity
    ("#000000", 0.0),
    ("#000000", 0.55),
    ("#ffffff", 1.0),
    *((colour, 1.0) for colour in CLASS_COLOURS),
    *((colour, 0.38) for colour in CLASS_COLOURS),
    (FIXED, 0.9),
    (BROKEN, 0.9),
    (WRONG, 0.75),
)
PIXELS, LINE_PIXELS = 440, 3  # of a layer's longer side; of a line


def get_class_colour(index: int) -> str:
    """Return the colour of a class by its index; colours repeat."""
    return CLASS_COLOURS[index % len(CLASS_COLOURS)]


def draw_layers(
    labels: Mapping[str, np.ndarray], classes: Classes, size: tuple[float, float]
) -> tuple[dict[str, bytes], int]:
    """Draw the layers of one slice.

    Args:
        labels: "reference", "method" and perhaps "baseline" -> (Y, X).
        classes: to draw.
        size: physical height and width.

    Returns:
        Layers as PNG, and the number of voxels in which "method" is wrong.
    """
    enlarged = {name: enlarge_to_pixels(array, size) for name, array in labels.items()}
    layers = {"reference": fill_classes(enlarged["reference"], classes)}
    for name in ("baseline", "method"):
        if name in enlarged:
            layers[name] = outline_classes(enlarged[name], enlarged["reference"], classes)
    errors = {
        name: mark_errors(array, labels["reference"], classes)
        for name, array in labels.items()
        if name != "reference"
    }
    layers["disagreement"] = enlarge_to_pixels(
        draw_disagreement(errors["method"], errors.get("baseline", errors["method"])), size
    )
    return {name: encode_layer(layer) for name, layer in layers.items()}, int(
        errors["method"].sum()
    )


def enlarge_to_pixels(array: np.ndarray, size: tuple[float, float]) -> np.ndarray:
    """Return the nearest voxel of (Y, X) at every pixel of a layer."""
    rows, columns = (
        np.arange(pixels) * voxels // pixels
        for voxels, pixels in zip(
            array.shape, (max(1, round(PIXELS * side / max(size))) for side in size), strict=True
        )
    )
    return array[np.ix_(rows, columns)]


def fill_classes(labels: np.ndarray, classes: Classes) -> Layer:
    """Draw every class in its colour, with its contour."""
    layer = np.zeros(labels.shape, np.uint8)
    for index, values in enumerate(classes.values()):
        layer[np.isin(labels, values)] = FIRST_FILL + index % len(CLASS_COLOURS)
    return draw_contours(layer, labels, classes)


def outline_classes(labels: np.ndarray, reference: np.ndarray, classes: Classes) -> Layer:
    """Draw the contours of every class over the white contours of the reference."""
    layer = np.zeros(labels.shape, np.uint8)
    lines = [find_contour(np.isin(reference, values)) for values in classes.values()]
    line = np.any(lines, axis=0)
    layer[binary_dilation(line)] = HALO
    layer[line] = WHITE
    return draw_contours(layer, labels, classes)


def draw_contours(layer: Layer, labels: np.ndarray, classes: Classes) -> Layer:
    """Add the contour of every class; contours of regions overlap."""
    for index, values in enumerate(classes.values()):
        line = find_contour(np.isin(labels, values))
        layer[binary_dilation(line) & (layer != WHITE) & ~line & (layer < FIRST_CLASS)] = HALO
        layer[line] = FIRST_CLASS + index % len(CLASS_COLOURS)
    return layer


def find_contour(mask: np.ndarray) -> np.ndarray:
    """Return the outermost pixels of a mask (H, W), as thick as a line."""
    if not mask.any():
        return mask
    return np.asarray(mask & ~binary_erosion(mask, iterations=LINE_PIXELS))


def mark_errors(labels: np.ndarray, reference: np.ndarray, classes: Classes) -> np.ndarray:
    """Mark the pixels where any class differs from the reference."""
    errors = np.zeros(labels.shape, bool)
    for values in classes.values():
        errors |= np.isin(labels, values) != np.isin(reference, values)
    return errors


def draw_disagreement(method: np.ndarray, baseline: np.ndarray) -> Layer:
    """Draw where only the baseline is wrong, where only the method, and where both are.

    >>> draw_disagreement(np.array([[False, True]]), np.array([[True, True]])) - FIRST_ERROR
    array([[0, 2]], dtype=uint8)
    """
    layer = np.zeros(method.shape, np.uint8)
    masks = (baseline & ~method, method & ~baseline, method & baseline)
    for number, mask in enumerate(masks):
        layer[mask] = FIRST_ERROR + number
    return layer


def encode_layer(layer: Layer) -> bytes:
    """Return a PNG with few colours, transparent where nothing is drawn."""
    picture = Image.fromarray(layer, "P")
    picture.putpalette([channel for colour, _ in PALETTE for channel in ImageColor.getrgb(colour)])
    file = io.BytesIO()
    opacities: Sequence[int] = [round(255 * opacity) for _, opacity in PALETTE]
    picture.save(file, "PNG", optimize=True, transparency=bytes(opacities))
    return file.getvalue()
