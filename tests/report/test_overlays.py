"""Slices as pictures: right slices, right shape, right colours."""

import io

import numpy as np
import pytest
from PIL import Image

from semi_nnunet.report.contours import (
    CLASS_COLOURS,
    FIRST_CLASS,
    FIRST_ERROR,
    FIRST_FILL,
    WHITE,
    contour,
    disagreement,
    enlarged,
    filled,
    is_wrong,
    layers_of,
    outlined,
)
from semi_nnunet.report.overlays import (
    Drawn,
    chosen_slices,
    region_of_interest,
    slice_axis,
    slices_of,
)

CLASSES = {"liver": (1,), "tumour": (2,)}
REGIONS = {"whole": (1, 2), "core": (2,)}


def opened(content: bytes) -> Image.Image:
    return Image.open(io.BytesIO(content))


def volume(depth: int = 12) -> np.ndarray:
    label = np.zeros((depth, 40, 60), int)
    label[2:9, 10:20, 20:40] = 1
    label[4:6, 12:16, 30:36] = 2
    return label


def drawn(label: np.ndarray, **more) -> Drawn:
    labels = {"reference": label, "baseline": np.roll(label, 2, 1), "method": np.roll(label, 1, 1)}
    image = np.random.default_rng(0).random((1, *label.shape))
    return Drawn(image, labels, more.pop("spacing", (1.0, 1.0, 1.0)), **more)


def test_slices_with_foreground_are_chosen_evenly_up_to_the_limit():
    label = volume()
    assert chosen_slices([label], 24) == [2, 3, 4, 5, 6, 7, 8]
    assert chosen_slices([label], 3) == [2, 5, 8]
    other = np.zeros_like(label)
    other[10, 0, 0] = 1
    assert chosen_slices([label, other], 24)[-1] == 10
    assert chosen_slices([np.zeros_like(label)], 24) == [6]


def test_a_case_becomes_slices_with_every_layer():
    found = slices_of(drawn(volume()), CLASSES)
    assert [one.number for one in found] == [3, 4, 5, 6, 7, 8, 9] and found[0].depth == 12
    for one in found:
        assert set(one.layers) == {"reference", "baseline", "method", "disagreement"}
        assert opened(one.image).mode == "L"
        for layer in one.layers.values():
            lowest, highest = opened(layer).convert("RGBA").getchannel("A").getextrema()
            assert lowest == 0 and highest > 150  # nothing around, something drawn
    assert found[0].wrong == 2 * 20  # a row above and one below
    assert found[2].wrong > found[0].wrong  # the tumour is there


def test_without_a_baseline_its_layer_is_left_out():
    label = volume()
    alone = Drawn(np.ones((1, *label.shape)), {"reference": label, "method": label}, (1, 1, 1))
    (first, *_) = slices_of(alone, CLASSES)
    assert set(first.layers) == {"reference", "method", "disagreement"} and first.wrong == 0
    assert opened(first.layers["disagreement"]).convert("RGBA").getextrema()[3] == (0, 0)


def test_voxels_keep_their_shape_and_thick_slices_are_what_is_scrolled():
    label = np.zeros((10, 10, 10), int)
    label[3:7, 3:7, 3:7] = 1
    (one, *_) = slices_of(drawn(label, spacing=(1.0, 2.0, 0.5)), CLASSES)
    assert slice_axis((1.0, 2.0, 0.5)) == 1 and slice_axis((1.0, 1.5, 1.0)) == 0
    assert one.ratio == pytest.approx(0.5)  # 10 x 0.5 mm wide, 10 x 1 mm high
    width, height = opened(one.layers["reference"]).size
    assert width / height == pytest.approx(one.ratio, rel=0.01)


def test_a_small_organ_in_a_large_image_is_shown_large():
    label = np.zeros((3, 200, 300), int)
    label[1, 100:110, 50:60] = 1
    rows, columns = region_of_interest([label])
    assert rows.stop - rows.start < 40 and columns.stop - columns.start < 40
    assert rows.start <= 100 and rows.stop >= 110
    assert region_of_interest([np.zeros_like(label)]) == (slice(0, 200), slice(0, 300))


def test_flat_colour_images_are_shown_whole_and_in_colour():
    label = np.zeros((1, 64, 48), int)
    label[0, 30:40, 20:30] = 1
    image = np.zeros((3, 1, 64, 48))
    image[0] = 255
    both = {"reference": label, "method": label}
    (one,) = slices_of(Drawn(image, both, (1.0, 1.0, 1.0), colour=True), CLASSES)
    picture = opened(one.image)
    assert picture.format == "JPEG" and picture.size == (48, 64)
    red, green, blue = picture.getpixel((5, 5))
    assert red > 240 and max(green, blue) < 20


def test_large_images_are_made_smaller():
    label = np.ones((1, 1000, 700), int)
    (one,) = slices_of(drawn(label), CLASSES)
    assert max(opened(one.image).size) <= 400


def test_voxels_to_ignore_are_not_wrong():
    label = volume()
    label[:, :, :25] = 3
    shown = drawn(label, ignore=3)
    shown.labels["method"][...] = np.where(label == 3, 1, label)
    assert all(one.wrong == 0 for one in slices_of(shown, CLASSES))


def test_a_contour_is_inside_its_mask_and_around_it():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    line = contour(mask)
    assert not (line & ~mask).any() and line[10, 10] and not line[20, 20]
    assert not contour(np.zeros((5, 5), bool)).any()


def test_contours_of_the_reference_are_white_below_those_of_the_method():
    reference, method = np.zeros((60, 60), int), np.zeros((60, 60), int)
    reference[10:30, 10:30], method[10:30, 20:50] = 1, 1
    layer = outlined(method, reference, CLASSES)
    assert layer[20, 10] == WHITE and layer[20, 20] == FIRST_CLASS and layer[0, 0] == 0
    same = outlined(reference, reference, CLASSES)
    assert WHITE not in same  # covered
    assert filled(reference, CLASSES)[20, 20] == FIRST_FILL


def test_overlapping_regions_are_drawn_both_and_wrong_where_either_is():
    label = volume()[4]
    layer = filled(enlarged(label, label.shape), REGIONS)
    assert {FIRST_CLASS, FIRST_CLASS + 1, FIRST_FILL, FIRST_FILL + 1} <= set(np.unique(layer))
    other = np.where(label == 2, 1, label)
    assert is_wrong(other, label, REGIONS).sum() == (label == 2).sum()


def test_disagreement_tells_who_is_wrong():
    method, baseline = np.array([[0, 1, 0, 1]], bool), np.array([[0, 0, 1, 1]], bool)
    assert disagreement(method, baseline).tolist() == [
        [0, FIRST_ERROR + 1, FIRST_ERROR, FIRST_ERROR + 2]
    ]


def test_layers_are_small_and_the_colours_of_classes_repeat():
    label = np.arange(16).reshape(4, 4)
    classes = {str(n): (n,) for n in range(1, 16)}
    layers, _ = layers_of({"reference": label, "method": label}, classes, (4.0, 4.0))
    assert all(len(layer) < 4000 for layer in layers.values())
    assert len(classes) > len(CLASS_COLOURS)
    assert np.unique(enlarged(label, (4.0, 4.0))).tolist() == list(range(16))
