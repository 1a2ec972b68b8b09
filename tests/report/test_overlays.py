"""Slices as pictures: right slices, right shape, right colours."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from semi_nnunet.reporting.overlays import (
    CaseDrawing,
    choose_slices,
    draw_slices,
    find_region_of_interest,
    find_slice_axis,
)
from semi_nnunet.util.greys import find_grey_window
from tests.report.volumes import CLASSES, volume


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def drawn(label: np.ndarray, **more) -> CaseDrawing:
    labels = {"reference": label, "baseline": np.roll(label, 2, 1), "method": np.roll(label, 1, 1)}
    image = np.random.default_rng(0).random((1, *label.shape))
    return CaseDrawing(image, labels, more.pop("spacing", (1.0, 1.0, 1.0)), **more)


def test_slices_with_foreground_are_chosen_evenly_up_to_the_limit():
    label = volume()
    assert choose_slices([label], 24) == [2, 3, 4, 5, 6, 7, 8]
    assert choose_slices([label], 3) == [2, 5, 8]
    other = np.zeros_like(label)
    other[10, 0, 0] = 1
    assert choose_slices([label, other], 24)[-1] == 10
    assert choose_slices([np.zeros_like(label)], 24) == [6]


def test_a_case_becomes_slices_with_every_layer():
    slices = draw_slices(drawn(volume()), CLASSES)
    assert [drawn_slice.number for drawn_slice in slices] == [3, 4, 5, 6, 7, 8, 9] and slices[
        0
    ].depth == 12
    for drawn_slice in slices:
        assert set(drawn_slice.layers) == {"reference", "baseline", "method", "disagreement"}
        assert opened(drawn_slice.image).mode == "L"
        for layer in drawn_slice.layers.values():
            lowest, highest = opened(layer).convert("RGBA").getchannel("A").getextrema()
            assert lowest == 0 and highest > 150  # transparent outside, opaque on contours
    assert slices[0].errors == 2 * 20  # a row above and one below
    assert slices[2].errors > slices[0].errors  # the tumour is there


def test_the_greys_of_an_organ_differ_although_air_and_bone_are_in_the_image():
    label = volume()
    image = np.where(label == 2, 140.0, np.where(label == 1, 60.0, -1000.0))[None]
    image[0, :, :4] = 3000.0
    case = CaseDrawing(image, {"reference": label, "method": label}, (1, 1, 1))
    (low, high) = find_grey_window(image[0], label)
    assert -200 < low < 60 and 140 < high < 400
    middle = draw_slices(case, CLASSES)[3]
    pixels = np.asarray(opened(middle.image))
    assert len({int(grey) for grey in np.unique(pixels)} - {0, 255}) >= 2


def test_without_a_baseline_its_layer_is_left_out():
    label = volume()
    case = CaseDrawing(np.ones((1, *label.shape)), {"reference": label, "method": label}, (1, 1, 1))
    (first, *_) = draw_slices(case, CLASSES)
    assert set(first.layers) == {"reference", "method", "disagreement"} and first.errors == 0
    assert opened(first.layers["disagreement"]).convert("RGBA").getextrema()[3] == (0, 0)


def test_voxels_keep_their_shape_and_the_viewer_scrolls_through_thick_slices():
    label = np.zeros((10, 10, 10), int)
    label[3:7, 3:7, 3:7] = 1
    (first, *_) = draw_slices(drawn(label, spacing=(1.0, 2.0, 0.5)), CLASSES)
    assert find_slice_axis((1.0, 2.0, 0.5)) == 1 and find_slice_axis((1.0, 1.5, 1.0)) == 0
    assert first.ratio == pytest.approx(0.5)  # 10 x 0.5 mm wide, 10 x 1 mm high
    width, height = opened(first.layers["reference"]).size
    assert width / height == pytest.approx(first.ratio, rel=0.01)


def test_a_small_organ_in_a_large_image_is_shown_large():
    label = np.zeros((3, 200, 300), int)
    label[1, 100:110, 50:60] = 1
    rows, columns = find_region_of_interest([label])
    assert rows.stop - rows.start < 40 and columns.stop - columns.start < 40
    assert rows.start <= 100 and rows.stop >= 110
    assert find_region_of_interest([np.zeros_like(label)]) == (slice(0, 200), slice(0, 300))


def test_flat_colour_images_are_shown_whole_and_in_colour():
    label = np.zeros((1, 64, 48), int)
    label[0, 30:40, 20:30] = 1
    image = np.zeros((3, 1, 64, 48))
    image[0] = 255
    labels = {"reference": label, "method": label}
    (drawn_slice,) = draw_slices(CaseDrawing(image, labels, (1.0, 1.0, 1.0), colour=True), CLASSES)
    picture = opened(drawn_slice.image)
    assert picture.format == "JPEG" and picture.size == (48, 64)
    red, green, blue = picture.getpixel((5, 5))
    assert red > 240 and max(green, blue) < 20


def test_large_images_are_reduced():
    label = np.ones((1, 1000, 700), int)
    (drawn_slice,) = draw_slices(drawn(label), CLASSES)
    assert max(opened(drawn_slice.image).size) <= 400


def test_ignored_voxels_are_not_errors():
    label = volume()
    label[:, :, :25] = 3
    shown = drawn(label, ignore=3)
    shown.labels["method"][...] = np.where(label == 3, 1, label)
    assert all(drawn_slice.errors == 0 for drawn_slice in draw_slices(shown, CLASSES))
