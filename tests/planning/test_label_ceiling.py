"""How well labels survive the spacing of a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg

from semi_nnunet.planning.label_ceiling import (
    LOWEST,
    LabelCeiling,
    LabelImage,
    crop_to_labels,
    describe_ceiling,
    label_ceiling,
    resample_label_grid,
    resample_there_and_back,
)
from semi_nnunet.util.files import read_json


def balls(shape: tuple[int, ...] = (24, 40, 36)) -> np.ndarray:
    """Two touching balls of labels 1 and 2."""
    grid = np.indices(shape)
    labels = np.zeros(shape, np.int16)
    for value, centre in ((1, (12, 14, 18)), (2, (12, 26, 18))):
        distance = sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True))
        labels[distance < 64] = value
    return labels


def lines(width: int, period: int = 40, edge: int = 200) -> np.ndarray:
    """A picture of parallel vessels (1, y, x)."""
    where = np.arange(edge) % period < width
    return np.broadcast_to(where, (1, edge, edge)).astype(np.int16)


def dice(one: np.ndarray, other: np.ndarray) -> float:
    return float(2 * (one & other).sum() / (one.sum() + other.sum()))


def test_at_its_own_spacing_a_label_is_whole() -> None:
    image = LabelImage(balls(), (3.0, 1.0, 1.0))
    assert np.array_equal(resample_there_and_back(image, [3, 1, 1]), image.labels)
    assert np.array_equal(resample_there_and_back(image, [1, 1]), image.labels)
    assert LabelCeiling([image], {"a": [1], "b": [2]}).at([3, 1, 1]) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize("spacing", [[2.0, 2.0, 2.0], [1.0, 3.0, 3.0]])
def test_labels_are_lost_as_nnunet_loses_them(spacing: list[float]) -> None:
    labels = balls()
    kept = resample_there_and_back(LabelImage(labels, (1.0, 1.0, 1.0)), spacing)
    coarse = [round(n / one) for n, one in zip(labels.shape, spacing, strict=True)]
    how = {"is_seg": True, "order": 1, "do_separate_z": False}
    fewer = resample_data_or_seg(labels[None], coarse, axis=None, **how)
    theirs = resample_data_or_seg(fewer, labels.shape, axis=None, **how)[0]
    for value in (1, 2):
        before = labels == value
        ours = dice(before, kept == value)
        assert ours < 1 and ours == pytest.approx(dice(before, theirs == value), abs=0.03)


def test_thin_structures_vanish_first() -> None:
    kept = [
        LabelCeiling([LabelImage(lines(width), (1, 1, 1))], {"vessel": [1]}).at([4, 4])["vessel"]
        for width in (2, 6, 20)
    ]
    assert kept == sorted(kept) and kept[0] < 0.6 and kept[-1] > LOWEST


def test_every_voxel_gets_a_class_where_several_meet() -> None:
    quarters = np.zeros((1, 60, 60), np.int16)
    quarters[:, :30, 30:], quarters[:, 30:, :30], quarters[:, 30:, 30:] = 1, 2, 3
    coarse = resample_label_grid(quarters, (20, 20))
    assert [int((coarse == value).sum()) for value in range(4)] == [100] * 4
    assert np.array_equal(resample_label_grid(coarse, (60, 60)), quarters)


def test_regions_are_all_their_values_and_ignored_voxels_are_nothing() -> None:
    labels = balls()
    labels[:, :3] = 9
    image = crop_to_labels(LabelImage(labels, (1, 1, 1)), [9])
    assert image.labels.shape == (15, 27, 15)  # what is labelled
    found = LabelCeiling([image], {"whole": [1, 2], "second": [2], "none": [5]}).at([3, 3, 3])
    assert found.keys() == {"whole", "second"} and found["whole"] > found["second"]


def test_without_labels_every_spacing_is_good_enough() -> None:
    empty = crop_to_labels(LabelImage(np.zeros((4, 8, 8), np.int16), (1, 1, 1)), [])
    for images in ([], [empty]):
        ceiling = LabelCeiling(images, {"organ": [1]})
        assert ceiling.at([9, 9, 9]) == {} and ceiling.is_kept_at([9, 9, 9])
    assert describe_ceiling({}) == ""


def test_the_class_that_suffers_most_is_told() -> None:
    assert describe_ceiling({"a": 0.99, "b": 0.96}) == (
        "the labels themselves keep a Dice of 0.960 (b) at this spacing"
    )
    assert describe_ceiling({"a": 0.99, "b": 0.71}).startswith(
        "WARNING: the labels themselves keep"
    ) and ("--spacing" in describe_ceiling({"a": 0.99, "b": 0.71}))


@pytest.mark.parametrize("kind", ["labels", "regions", "ignore"])
def test_the_labels_are_those_that_nnunet_keeps(kind: str, prepared_dataset: Any) -> None:
    made = prepared_dataset(kind, 1)
    description = read_json(made.preprocessed / "dataset.json")
    ceiling = label_ceiling(made.plans, description, made.preprocessed)
    own = made.plans["configurations"]["3d_fullres"]["spacing"]
    named = set(description["labels"]) - {"background", "ignore"}
    assert set(ceiling.at(own)) == named and min(ceiling.at(own).values()) > 0.99
    assert min(ceiling.at([4 * edge for edge in own]).values()) < 0.9
