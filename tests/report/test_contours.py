"""Layers over a slice: contours in the right colours, and errors."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageColor

from semi_nnunet.reporting.contours import (
    CLASS_COLOURS,
    FIRST_CLASS,
    FIRST_ERROR,
    FIRST_FILL,
    PALETTE,
    PIXELS,
    WHITE,
    draw_disagreement,
    draw_layers,
    encode_layer,
    enlarge_to_pixels,
    fill_classes,
    find_contour,
    get_class_colour,
    mark_errors,
    outline_classes,
)
from tests.report.volumes import CLASSES, REGIONS, volume


def test_a_contour_is_inside_its_mask_and_around_it():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    line = find_contour(mask)
    assert not (line & ~mask).any() and line[10, 10] and not line[20, 20]
    assert not find_contour(np.zeros((5, 5), bool)).any()


def test_contours_of_the_reference_are_white_below_those_of_the_method():
    reference, method = np.zeros((60, 60), int), np.zeros((60, 60), int)
    reference[10:30, 10:30], method[10:30, 20:50] = 1, 1
    layer = outline_classes(method, reference, CLASSES)
    assert layer[20, 10] == WHITE and layer[20, 20] == FIRST_CLASS and layer[0, 0] == 0
    covered = outline_classes(reference, reference, CLASSES)
    assert WHITE not in covered  # covered
    assert fill_classes(reference, CLASSES)[20, 20] == FIRST_FILL


def test_overlapping_regions_are_both_drawn_and_both_count_as_errors():
    label = volume()[4]
    layer = fill_classes(enlarge_to_pixels(label, label.shape), REGIONS)
    assert {FIRST_CLASS, FIRST_CLASS + 1, FIRST_FILL, FIRST_FILL + 1} <= set(np.unique(layer))
    other = np.where(label == 2, 1, label)
    assert mark_errors(other, label, REGIONS).sum() == (label == 2).sum()


def test_disagreement_shows_which_model_is_wrong():
    method, baseline = np.array([[0, 1, 0, 1]], bool), np.array([[0, 0, 1, 1]], bool)
    assert draw_disagreement(method, baseline).tolist() == [
        [0, FIRST_ERROR + 1, FIRST_ERROR, FIRST_ERROR + 2]
    ]


def test_layers_are_small_and_the_colours_of_classes_repeat():
    label = np.arange(16).reshape(4, 4)
    classes = {str(n): (n,) for n in range(1, 16)}
    layers, _ = draw_layers({"reference": label, "method": label}, classes, (4.0, 4.0))
    assert all(len(layer) < 4000 for layer in layers.values())
    assert len(classes) > len(CLASS_COLOURS)
    assert np.unique(enlarge_to_pixels(label, (4.0, 4.0))).tolist() == list(range(16))


@pytest.mark.parametrize("size", [(10.0, 20.0), (30.0, 7.0), (5.0, 5.0)])
def test_every_pixel_of_an_enlarged_slice_is_its_nearest_voxel(size):
    label = np.arange(12).reshape(3, 4)
    enlarged = enlarge_to_pixels(label, size)
    rows, columns = enlarged.shape
    assert max(enlarged.shape) == PIXELS and rows / columns == pytest.approx(
        size[0] / size[1], rel=0.01
    )
    expected = [
        [label[3 * y // rows, 4 * x // columns] for x in range(columns)] for y in range(rows)
    ]
    assert np.array_equal(enlarged, expected)


def test_the_file_of_a_layer_has_the_colours_and_opacities_of_the_palette():
    layer = np.arange(len(PALETTE), dtype=np.uint8)[None]
    with Image.open(io.BytesIO(encode_layer(layer))) as picture:
        pixels = np.asarray(picture.convert("RGBA"))[0]
    for pixel, (colour, opacity) in zip(pixels, PALETTE, strict=True):
        assert tuple(pixel) == (*ImageColor.getrgb(colour), round(255 * opacity))
    assert pixels[0][3] == 0  # where nothing is drawn


def test_the_legend_has_the_colours_that_are_drawn():
    for number in range(2 * len(CLASS_COLOURS)):
        labels = np.full((20, 20), number + 1)
        classes = {str(n): (n + 1,) for n in range(number + 1)}
        filling = fill_classes(labels, classes)[10, 10]
        assert PALETTE[filling][0] == get_class_colour(number)
    assert len({*CLASS_COLOURS}) == len(CLASS_COLOURS)


def test_errors_are_counted_on_the_voxels_of_the_slice():
    reference = volume()[4]
    method, baseline = np.roll(reference, 1, 0), np.roll(reference, 2, 0)
    labels = {"reference": reference, "baseline": baseline, "method": method}
    layers, errors = draw_layers(labels, CLASSES, (40.0, 60.0))
    assert errors == (method != reference).sum() > 0 and set(layers) == {*labels, "disagreement"}
    _, no_errors = draw_layers({"reference": reference, "method": reference}, CLASSES, (40.0, 60.0))
    assert no_errors == 0
