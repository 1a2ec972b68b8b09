"""Statistics of preprocessed images, and the distance of two sets of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import SimpleITK as sitk

from semi_nnunet.preprocessing.case_facts import (
    QUANTILES,
    compute_class_facts,
    compute_foreground_slices,
    compute_image_facts,
    compute_intensity_shift,
    compute_label_facts,
    find_lookalike_classes,
)
from semi_nnunet.preprocessing.manifest import ManifestEntry


def image(channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(channels, 4, 6, 8)).astype(np.float32)


def facts_of(data: np.ndarray, **options: Any) -> dict[str, Any]:
    return compute_image_facts(data, {"spacing": np.array([3, 1, 1])}, **options)


def entries(facts: Sequence[dict[str, Any]]) -> list[ManifestEntry]:
    return [ManifestEntry(f"case{i}", "source", {}, own) for i, own in enumerate(facts)]


def test_quantiles_are_those_of_numpy_inside_the_body() -> None:
    data = image()
    data[:, :2] = 0  # outside
    data[0, 3, 0, 0] = 0  # but this voxel is inside, as the other channel shows something
    found = facts_of(data)
    assert found["shape"] == [4, 6, 8] and found["spacing"] == [3.0, 1.0, 1.0]
    for channel, quantiles in zip(data[:, 2:], found["quantiles"], strict=True):
        assert quantiles == pytest.approx(np.quantile(channel, QUANTILES), abs=1e-4)


def test_an_empty_image_has_quantiles() -> None:
    assert facts_of(np.zeros((1, 2, 3, 4), np.float32))["quantiles"] == [[0.0] * len(QUANTILES)]


def test_sampling_fewer_voxels_changes_little() -> None:
    data = np.random.default_rng(0).normal(size=(1, 40, 50, 60)).astype(np.float32)
    every, some = (facts_of(data, voxels=count)["quantiles"][0] for count in (10**6, 10_000))
    assert every != some and every == pytest.approx(some, abs=0.15)


def test_sampled_voxels_lie_in_all_columns() -> None:
    data = np.full((1, 98, 512, 512), -1, np.float32)
    data[:, :, :, 200:312] = 1.0  # a fifth of the voxels, in columns that a stride of 128 misses
    facts = compute_image_facts(data, {"spacing": (1, 1, 1)})
    assert facts["quantiles"][0][-2:] == [1.0, 1.0]


def test_a_row_of_odd_length_is_sampled_in_all_columns() -> None:
    data = np.full((1, 60, 225, 225), -1, np.float32)
    data[:, :, :, 1:15] = data[:, :, :, 16:30] = 1.0  # between the columns of a stride of 15
    facts = compute_image_facts(data, {"spacing": (1, 1, 1)})
    assert facts["quantiles"][0][-2:] == [1.0, 1.0]


def test_slices_with_foreground_are_counted() -> None:
    segmentation = np.zeros((1, 4, 5, 6), np.int8)
    segmentation[0, 1, 2, 3], segmentation[0, 2, 0, 0] = 2, -1  # -1: outside, in nnU-Net's files
    assert compute_label_facts(segmentation) == {"foreground_slices": 0.25, "pieces": 1}
    known = entries([{"foreground_slices": 0.25}, {"foreground_slices": 0.75}, {"shape": [1]}])
    assert compute_foreground_slices(known) == 0.5
    assert compute_foreground_slices(known[2:]) == compute_foreground_slices([]) == 1.0  # not known


def test_the_intensity_shift_of_two_sets_is_their_distance() -> None:
    labelled = entries([facts_of(image(seed=seed)) for seed in range(3)])
    moved = entries([facts_of(image(seed=seed) - 0.75) for seed in range(3)])
    assert compute_intensity_shift(labelled, labelled) == 0.0
    assert compute_intensity_shift(labelled, moved) == pytest.approx(0.75, abs=1e-3)
    assert compute_intensity_shift(moved, labelled) == compute_intensity_shift(labelled, moved)
    unknown = entries([{"shape": [1, 2, 3]}])
    assert (
        compute_intensity_shift(labelled, []) == compute_intensity_shift(unknown, labelled) == 0.0
    )


def two_classes(
    brighter: float = 0.0, swapped: bool = False, along: int = 2, seed: int = 0
) -> dict[str, Any]:
    """Facts of two boxes of noise, one behind the other along an axis."""
    noise = np.random.default_rng(seed)
    data = noise.normal(size=(1, 12, 12, 12)).astype(np.float32)
    labels = np.zeros((12, 12, 12), int)
    halves = (slice(0, 5), slice(6, 12))
    for value, half in zip((2, 1) if swapped else (1, 2), halves, strict=True):
        labels[tuple(half if axis == along else slice(None) for axis in range(3))] = value
    data[0][labels == 2] += brighter
    where = {value: np.argwhere((labels == value)[None]) for value in (1, 2)}
    return compute_class_facts(data, where | {(-1, 0, 1, 2): np.zeros((20, 4), int), 3: []})


def test_facts_of_a_class_are_its_position_and_intensities() -> None:
    found = two_classes(brighter=3)["classes"]
    assert list(found) == ["1", "2"]  # no sets of classes, and none without voxels
    assert found["1"]["center"] == pytest.approx([5.5, 5.5, 2.0], abs=1e-3)
    assert found["1"]["spread"][2] == pytest.approx(np.std(range(5)), abs=1e-3)
    assert found["2"]["mean"] == pytest.approx([3], abs=0.2)
    assert found["2"]["deviation"] == pytest.approx([1], abs=0.1)


@pytest.mark.parametrize(
    "cases, dimensions, expected",
    [
        ([{}] * 3, 3, (1, 2)),
        ([{}] * 3, 2, (1, 2)),
        ([{"along": 0}] * 3, 3, (1, 2)),
        ([{"along": 0}] * 3, 2, None),  # slices are not mirrored across themselves
        ([{}] * 2, 3, None),  # too few to know
        ([{"brighter": 2.0}] * 3, 3, None),  # their intensity tells them apart
        ([{}, {}, {"swapped": True}], 3, None),  # no order
        ([{}] * 39 + [{"swapped": True}], 3, (1, 2)),  # one patient who is unlike all others
    ],
)
def test_classes_separated_only_by_their_position_are_found(cases, dimensions, expected) -> None:
    facts = [two_classes(seed=seed, **case) for seed, case in enumerate(cases)]
    assert find_lookalike_classes(entries([*facts, {"shape": [1]}]), dimensions) == expected


def test_the_halves_of_the_hippocampus_are_found(tmp_path: Path) -> None:
    packed = Path(__file__).parents[2].parent / "shared/data/Hippocampus.zip"
    if not packed.exists():
        pytest.skip(f"{packed} is not there: real data")
    found = []
    with ZipFile(packed) as files:
        for label in sorted(name for name in files.namelist() if "labelsTr" in name)[:4]:
            image = label.replace("labelsTr", "imagesTr").replace(".nii.gz", "_0000.nii.gz")
            values, data = (
                sitk.GetArrayFromImage(sitk.ReadImage(files.extract(name, tmp_path)))
                for name in (label, image)
            )
            where = {value: np.argwhere((values == value)[None]) for value in (1, 2)}
            found.append(compute_class_facts(data[None].astype(np.float32), where))
    assert find_lookalike_classes(entries(found), 2) == (1, 2)
