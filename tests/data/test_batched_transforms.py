"""The batched transforms are nnU-Net's: the same random numbers give the same patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.intensity.random_clip import CutOffOutliersTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.random import RandomTransform

from semi_nnunet.data.batched_transforms import BatchedTransforms
from semi_nnunet.data.loading import geometry_of
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.seeds import seeded
from tests.data.same_patches import (
    CASES,
    assert_same,
    batch_of,
    each_case,
    nnunet_result,
    nnunet_transforms,
    our_result,
)


@each_case
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"use_mask_for_norm": [True, False]},
        {"regions": [(1, 2, 3), (2, 3), (3,)]},
        {"regions": [(1, 2), 2], "ignore_label": 3},
    ],
    ids=["labels", "mask", "regions", "regions with an ignore label"],
)
def test_the_same_random_numbers_give_the_patches_of_nnunet(
    case: dict[str, Any], options: dict[str, Any]
) -> None:
    transforms = nnunet_transforms(case, **options)
    x, labels = batch_of(case, 12)
    kept, kept_labels = x.clone(), labels.clone()
    for seed in range(4):
        found = our_result(transforms, x, labels, seed)
        assert_same(found, nnunet_result(transforms, x, labels, seed))
    assert torch.equal(x, kept) and torch.equal(labels, kept_labels)  # what is given stays


@each_case
def test_what_is_moved_is_small_and_comes_to_the_same(case: dict[str, Any]) -> None:
    """Only samples that are turned or scaled are moved before they are cropped."""
    ours, (x, labels) = BatchedTransforms(nnunet_transforms(case)), batch_of(case, 12)
    with seeded(2):
        drawn = ours.draw(x)
    small, small_labels, moved = ours.cut(x, labels, drawn)
    assert small.shape[2:] == small_labels.shape[2:] == case["patch"]
    assert 0 < len(moved["larger"][0]) == len(moved["larger"][1]) < 12
    kept = small.clone(), [part.clone() for part in moved["larger"]]
    found, expected = ours(small, small_labels, moved), ours(x, labels, drawn)
    assert torch.equal(found[0], expected[0])
    levels = [part if isinstance(part, list) else [part] for part in (found[1], expected[1])]
    assert all(torch.equal(*pair) for pair in zip(*levels, strict=True))
    assert torch.equal(small, kept[0])
    assert all(torch.equal(*pair) for pair in zip(moved["larger"], kept[1], strict=True))


@each_case
@pytest.mark.parametrize("interpolated", [False, True])
def test_unlabelled_patches_get_the_geometry_alone(
    case: dict[str, Any], interpolated: bool
) -> None:
    if not interpolated:
        case = {**case, "first": case["patch"]}
    transforms = geometry_of(nnunet_transforms(case, noise=True), interpolated)
    x, labels = batch_of(case, 12)
    labels = labels.clamp(-1, 0)
    kept = x.clone()
    found = our_result(transforms, x, labels, 5)
    assert_same(found, nnunet_result(transforms, x, labels, 5))
    assert set(found[1].unique().tolist()) == {-1, 0} and torch.equal(x, kept)


def test_noise_has_the_standard_deviations_that_were_drawn() -> None:
    case = {"patch": (60, 50), "first": (60, 50), "scales": None}
    transform = RandomTransform(
        GaussianNoiseTransform((0.05, 0.1), synchronize_channels=False), 0.5
    )
    ours = BatchedTransforms(ComposeTransforms([transform]))
    x, labels = batch_of(case, 8)
    with seeded(1):
        drawn = ours.draw(x)
    changed, _ = ours(x, labels, drawn)
    assert torch.equal(changed, ours(x, labels, drawn)[0])  # its seed was drawn, too
    residue = (changed - x).flatten(2).std(2)
    with seeded(1):
        params = [
            transform.transform.get_parameters(image=x[0]) if draws["apply_transform"] else None
            for draws in (transform.get_parameters() for _ in x)
        ]
    for found, chosen in zip(residue, params, strict=True):
        if chosen is None:
            assert (found == 0).all()
        else:
            torch.testing.assert_close(
                found, torch.tensor(chosen["sigmas"]).float(), rtol=0.1, atol=0
            )
    assert 0 < sum(chosen is None for chosen in params) < 8


@pytest.mark.parametrize("case", [CASES["3d"], CASES["dummy 2d"]])
def test_transforms_come_as_often_as_in_nnunet(case: dict[str, Any]) -> None:
    """Of some thousand samples: how many are changed, and by the angles and scales of nnU-Net."""
    transforms = nnunet_transforms(case, noise=True)
    ours, x = BatchedTransforms(transforms), torch.empty(()).expand(4000, 1, *case["first"])
    with seeded(11):
        drawn = ours.draw(x)
    samples = {type(ours.steps[number]).__name__: rows for number, _, rows, _ in drawn["steps"]}
    gammas = [rows for number, _, rows, _ in drawn["steps"] if "Gamma" in str(ours.steps[number])]
    expected = {
        "SpatialStep": 0.36, "NoiseStep": 0.1, "BlurStep": 0.1, "BrightnessStep": 0.15,
        "ContrastStep": 0.15, "LowResolutionStep": 0.125,
    }  # fmt: skip
    for name, share in expected.items():
        assert samples[name] / 4000 == pytest.approx(share, abs=0.025), name
    assert [rows / 4000 for rows in gammas] == pytest.approx([0.1, 0.3], abs=0.03)


@each_case
def test_angles_and_scales_are_those_that_nnunet_draws(case: dict[str, Any]) -> None:
    """Number for number, of the same seed; and in the ranges that a trainer has changed."""
    spatial = next(
        part
        for part in nnunet_transforms(case, rotation=0.2).transforms
        if isinstance(part, SpatialTransform)
    )
    ours = BatchedTransforms(nnunet_transforms(case, rotation=0.2)).steps[0]
    image = torch.empty(()).expand(1, *case["first"])
    theirs_sees = image.flatten(0, 1) if case.get("flat") else image
    angles = []
    for seed in range(200):
        with seeded(seed):
            theirs = spatial.get_parameters(image=theirs_sees)["affine"]
        with seeded(seed):
            found = ours.draw(image)["affine"]
        assert (found is None) == (theirs is None)
        if found is not None:
            np.testing.assert_array_equal(found, theirs)
            scale = np.linalg.norm(found, axis=0)
            assert scale.min() >= 0.7 and scale.max() <= 1.4
            angles.append(np.arctan2(found[1, 0], found[0, 0]))
    assert 0.1 < max(np.abs(angles)) < 0.7


def test_what_is_not_known_is_refused_by_name_all_at_once() -> None:
    spatial = SpatialTransform((8, 8), 0, random_crop=True, p_elastic_deform=0.2)
    unknown = RandomTransform(CutOffOutliersTransform(), 0.5)
    with pytest.raises(UserError) as refused:
        BatchedTransforms(ComposeTransforms([spatial, unknown]))
    for word in (
        "SpatialTransform", "p_elastic_deform=0.2", "random_crop=True",
        "CutOffOutliersTransform by chance", "augmentation=workers",
    ):  # fmt: skip
        assert word in str(refused.value)


def test_the_previous_stage_of_a_cascade_is_refused() -> None:
    transforms = nnunet_transforms(CASES["3d"], is_cascaded=True, foreground_labels=[1, 2])
    with pytest.raises(UserError, match=r"MoveSegAsOneHotToData.*RemoveRandomConnectedComponent"):
        BatchedTransforms(transforms)
