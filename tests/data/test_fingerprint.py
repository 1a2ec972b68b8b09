"""Statistics of preprocessed images, and how far two sets of images are apart."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from semi_nnunet.data.fingerprint import (
    QUANTILES,
    foreground_slices,
    image_facts,
    intensity_shift,
    label_facts,
)
from semi_nnunet.data.manifest import Entry


def image(channels: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(channels, 4, 6, 8)).astype(np.float32)


def facts_of(data: np.ndarray, **options: Any) -> dict[str, Any]:
    return image_facts(data, {"spacing": np.array([3, 1, 1])}, **options)


def entries(facts: Sequence[dict[str, Any]]) -> list[Entry]:
    return [Entry(f"case{i}", "source", {}, own) for i, own in enumerate(facts)]


def test_quantiles_are_numpys_of_each_channel_inside_the_body() -> None:
    data = image()
    data[:, :2] = 0  # outside
    data[0, 3, 0, 0] = 0  # but this voxel is inside, as the other channel shows something
    found = facts_of(data)
    assert found["shape"] == [4, 6, 8] and found["spacing"] == [3.0, 1.0, 1.0]
    for channel, quantiles in zip(data[:, 2:], found["quantiles"], strict=True):
        assert quantiles == pytest.approx(np.quantile(channel, QUANTILES), abs=1e-4)


def test_an_image_of_nothing_has_quantiles_too() -> None:
    assert facts_of(np.zeros((1, 2, 3, 4), np.float32))["quantiles"] == [[0.0] * len(QUANTILES)]


def test_looking_at_fewer_voxels_changes_little() -> None:
    data = np.random.default_rng(0).normal(size=(1, 40, 50, 60)).astype(np.float32)
    every, some = (facts_of(data, voxels=count)["quantiles"][0] for count in (10**6, 10_000))
    assert every != some and every == pytest.approx(some, abs=0.15)


def test_slices_with_foreground_are_counted_and_ignored_ones_are_not() -> None:
    segmentation = np.zeros((1, 4, 5, 6), np.int8)
    segmentation[0, 1, 2, 3], segmentation[0, 2, 0, 0] = 2, -1  # -1: outside, in nnU-Net's files
    assert label_facts(segmentation) == {"foreground_slices": 0.25}
    known = entries([{"foreground_slices": 0.25}, {"foreground_slices": 0.75}, {"shape": [1]}])
    assert foreground_slices(known) == 0.5
    assert foreground_slices(known[2:]) == foreground_slices([]) == 1.0  # not known


def test_the_shift_of_two_sets_is_how_far_their_intensities_were_moved() -> None:
    labelled = entries([facts_of(image(seed=seed)) for seed in range(3)])
    moved = entries([facts_of(image(seed=seed) - 0.75) for seed in range(3)])
    assert intensity_shift(labelled, labelled) == 0.0
    assert intensity_shift(labelled, moved) == pytest.approx(0.75, abs=1e-3)
    assert intensity_shift(moved, labelled) == intensity_shift(labelled, moved)
    unknown = entries([{"shape": [1, 2, 3]}])
    assert intensity_shift(labelled, []) == intensity_shift(unknown, labelled) == 0.0
