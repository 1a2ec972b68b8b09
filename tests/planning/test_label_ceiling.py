"""Labels that survive the spacing of a network."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nnunetv2.preprocessing.resampling.default_resampling import resample_data_or_seg

from semi_nnunet.planning.label_ceiling import (
    MIN_CEILING,
    LabelCeiling,
    LabelImage,
    crop_to_labels,
    describe_ceiling,
    load_label_ceiling,
    resample_label_grid,
    resample_there_and_back,
)
from semi_nnunet.util.files import read_json


def balls(shape: tuple[int, ...] = (24, 40, 36)) -> np.ndarray:
    """Return two touching balls of labels 1 and 2."""
    grid = np.indices(shape)
    labels = np.zeros(shape, np.int16)
    for value, centre in ((1, (12, 14, 18)), (2, (12, 26, 18))):
        distance = sum((axis - c) ** 2 for axis, c in zip(grid, centre, strict=True))
        labels[distance < 64] = value
    return labels


def lines(width: int, period: int = 40, edge: int = 200) -> np.ndarray:
    """Return an image of parallel vessels (1, y, x)."""
    inside = np.arange(edge) % period < width
    return np.broadcast_to(inside, (1, edge, edge)).astype(np.int16)


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def test_labels_are_unchanged_at_their_own_spacing() -> None:
    image = LabelImage(balls(), (3.0, 1.0, 1.0))
    assert np.array_equal(resample_there_and_back(image, [3, 1, 1]), image.labels)
    assert np.array_equal(resample_there_and_back(image, [1, 1]), image.labels)
    assert LabelCeiling([image], {"a": [1], "b": [2]}).at([3, 1, 1]) == {"a": 1.0, "b": 1.0}


@pytest.mark.parametrize("spacing", [[2.0, 2.0, 2.0], [1.0, 3.0, 3.0]])
def test_labels_are_lost_as_in_nnunets_resampling(spacing: list[float]) -> None:
    labels = balls()
    resampled = resample_there_and_back(LabelImage(labels, (1.0, 1.0, 1.0)), spacing)
    coarse = [round(n / edge) for n, edge in zip(labels.shape, spacing, strict=True)]
    options = {"is_seg": True, "order": 1, "do_separate_z": False}
    fewer = resample_data_or_seg(labels[None], coarse, axis=None, **options)
    theirs = resample_data_or_seg(fewer, labels.shape, axis=None, **options)[0]
    for value in (1, 2):
        original = labels == value
        ours = dice(original, resampled == value)
        assert ours < 1 and ours == pytest.approx(dice(original, theirs == value), abs=0.03)


def test_thin_structures_vanish_first() -> None:
    ceilings = [
        LabelCeiling([LabelImage(lines(width), (1, 1, 1))], {"vessel": [1]}).at([4, 4])["vessel"]
        for width in (2, 6, 20)
    ]
    assert ceilings == sorted(ceilings) and ceilings[0] < 0.6 and ceilings[-1] > MIN_CEILING


def test_every_voxel_between_classes_gets_one_of_them() -> None:
    quarters = np.zeros((1, 60, 60), np.int16)
    quarters[:, :30, 30:], quarters[:, 30:, :30], quarters[:, 30:, 30:] = 1, 2, 3
    coarse = resample_label_grid(quarters, (20, 20))
    assert [int((coarse == value).sum()) for value in range(4)] == [100] * 4
    assert np.array_equal(resample_label_grid(coarse, (60, 60)), quarters)


def test_regions_have_all_their_values() -> None:
    image = crop_to_labels(LabelImage(balls(), (1, 1, 1)), [])
    assert image.labels.shape == (15, 27, 15)
    ceiling = LabelCeiling([image], {"whole": [1, 2], "second": [2], "none": [5]}).at([3, 3, 3])
    assert ceiling.keys() == {"whole", "second"} and ceiling["whole"] > ceiling["second"]


def test_ignored_voxels_take_the_nearest_label() -> None:
    """As in a slow search over all annotated voxels, in millimetres."""
    rng, spacing = np.random.default_rng(0), (4.0, 1.0, 1.5)
    labels = np.where(rng.random((3, 7, 8)) < 0.2, balls((3, 7, 8)) + rng.integers(0, 3), 9)
    labels[0, 0, 0] = labels[-1, -1, -1] = 1  # the box is the whole image
    filled = crop_to_labels(LabelImage(labels.astype(np.int16), spacing), [9]).labels
    annotated = np.argwhere(labels != 9)
    for voxel in np.argwhere(labels == 9):
        distances = np.linalg.norm((annotated - voxel) * spacing, axis=1)
        nearest = annotated[np.isclose(distances, distances.min())]
        assert filled[tuple(voxel)] in labels[tuple(nearest.T)]
    assert np.array_equal(filled[labels != 9], labels[labels != 9])


def test_scribbles_do_not_ask_for_finer_images() -> None:
    labels = np.zeros((1, 96, 96), np.int16)
    labels[:, 20:70, 20:70] = 1
    scribbles = np.full_like(labels, 2)
    scribbles[:, 44:46, 22:68], scribbles[:, 10:12], scribbles[:, 80:82] = 1, 0, 0
    ceilings = [
        LabelCeiling([crop_to_labels(LabelImage(image, (1, 1, 1)), [2])], {"organ": [1]})
        for image in (labels, scribbles)
    ]
    assert all(ceiling.is_kept_at([2.5, 2.5]) for ceiling in ceilings)


def test_without_labels_every_spacing_is_good_enough() -> None:
    empty = crop_to_labels(LabelImage(np.zeros((4, 8, 8), np.int16), (1, 1, 1)), [])
    for images in ([], [empty]):
        ceiling = LabelCeiling(images, {"organ": [1]})
        for spacing in ([9, 9, 9], [9, 9]):  # of 3-D and 2-D networks
            assert ceiling.at(spacing) == {} and ceiling.is_kept_at(spacing)
    assert describe_ceiling({}) == ""


def test_the_class_with_the_lowest_ceiling_is_described() -> None:
    good, low = describe_ceiling({"a": 0.99, "b": 0.96}), describe_ceiling({"a": 0.99, "b": 0.71})
    assert "0.960 (b)" in good and "WARNING" not in good
    assert low.startswith("WARNING") and "--spacing" in low


@pytest.mark.parametrize("kind", ["labels", "regions", "ignore"])
def test_the_labels_are_those_of_nnunet(kind: str, prepared_dataset: Any) -> None:
    dataset = prepared_dataset(kind, 1)
    description = read_json(dataset.preprocessed / "dataset.json")
    ceiling = load_label_ceiling(dataset.plans, description, dataset.preprocessed)
    spacing = dataset.plans["configurations"]["3d_fullres"]["spacing"]
    named = set(description["labels"]) - {"background", "ignore"}
    assert set(ceiling.at(spacing)) == named and min(ceiling.at(spacing).values()) > 0.99
    assert min(ceiling.at([4 * edge for edge in spacing]).values()) < 0.9
