"""The batched transforms are nnU-Net's: the same random numbers give the same patches."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.intensity.random_clip import CutOffOutliersTransform
from batchgeneratorsv2.transforms.noise.gaussian_blur import GaussianBlurTransform
from batchgeneratorsv2.transforms.spatial.low_resolution import SimulateLowResolutionTransform
from batchgeneratorsv2.transforms.spatial.mirroring import MirrorTransform
from batchgeneratorsv2.transforms.spatial.spatial import SpatialTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from batchgeneratorsv2.transforms.utils.deep_supervision_downsampling import (
    DownsampleSegForDSTransform,
)
from batchgeneratorsv2.transforms.utils.nnunet_masking import MaskImageTransform
from batchgeneratorsv2.transforms.utils.random import RandomTransform
from batchgeneratorsv2.transforms.utils.remove_label import RemoveLabelTransform
from batchgeneratorsv2.transforms.utils.seg_to_regions import ConvertSegmentationToRegionsTransform

from semi_nnunet.loading.batched_transforms import BatchedTransforms
from semi_nnunet.loading.steps import select_geometry
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
def test_cropping_before_the_move_to_the_device_changes_no_result(case: dict[str, Any]) -> None:
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
def test_unlabelled_patches_only_get_the_geometry(case: dict[str, Any], interpolated: bool) -> None:
    if not interpolated:
        case = {**case, "first": case["patch"]}
    transforms = select_geometry(nnunet_transforms(case, noise=True), interpolated)
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
def test_transforms_occur_as_often_as_in_nnunet(case: dict[str, Any]) -> None:
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


def test_all_unsupported_transforms_are_named_together() -> None:
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


# ---- single steps, also with options that nnU-Net's own training does not use ----

FACTORS = BGContrast((0.5, 2.0))
APPEARANCE = {
    "blur": lambda together, share: GaussianBlurTransform((0.3, 2.0), together, False, share),
    "blur, axes alike": lambda together, share: GaussianBlurTransform(
        (0.3, 2.0), together, True, share
    ),
    "brightness": lambda together, share: MultiplicativeBrightnessTransform(
        FACTORS, together, share
    ),
    "contrast": lambda together, share: ContrastTransform(FACTORS, False, together, share),
    "contrast in range": lambda together, share: ContrastTransform(FACTORS, True, together, share),
    "low resolution": lambda together, share: SimulateLowResolutionTransform(
        (0.3, 1.0), together, False, None, None, share
    ),
    "low resolution of a channel": lambda together, share: SimulateLowResolutionTransform(
        (0.3, 1.0), together, True, (0,), (1,), share
    ),
    "gamma": lambda together, share: GammaTransform(FACTORS, 0.5, together, share, 0.5),
}


@pytest.mark.parametrize("name", APPEARANCE)
@pytest.mark.parametrize("case", [CASES["2d"], CASES["3d"]], ids=["2d", "3d"])
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("chance", [None, 0.5])
def test_appearance_changes_are_those_of_nnunet(
    name: str, case: dict[str, Any], together: bool, chance: float | None
) -> None:
    transform = APPEARANCE[name](together, 0.6)
    transform = transform if chance is None else RandomTransform(transform, chance)
    x, labels = batch_of(case, 6, channels=3)
    for seed in range(3):
        found = our_result(ComposeTransforms([transform]), x, labels, seed)
        expected = nnunet_result(ComposeTransforms([transform]), x, labels, seed)
        torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-4)
        assert torch.equal(found[1], labels) and not torch.equal(found[0], x)


@pytest.mark.parametrize("chosen", [0.0, 1.0])
def test_without_a_drawn_channel_nothing_changes(chosen: float) -> None:
    x, labels = batch_of(CASES["2d"], 3)
    for make in APPEARANCE.values():
        ours = BatchedTransforms(ComposeTransforms([RandomTransform(make(False, chosen), chosen)]))
        with seeded(2):
            drawn = ours.draw(x)
        assert bool(drawn["steps"]) == bool(chosen)
        assert torch.equal(ours(x, labels, drawn)[0], x) != bool(chosen)


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("values", [(0.0, 0), (-2.5, 3)])
@pytest.mark.parametrize("patch", [(24, 20), (12, 14, 10), (16, 17, 9)], ids=str)
@pytest.mark.parametrize("larger", [14, -4])
def test_spatial_changes_are_those_of_nnunet(
    patch: tuple[int, ...], larger: int, mode: str, values: tuple[float, int]
) -> None:
    """Also along axes that are not turned, where an even difference of sizes keeps voxels."""
    case = {"patch": patch, "first": tuple(edge + larger for edge in patch)}
    transform = SpatialTransform(
        patch, 0, False, p_rotation=0.7, rotation=(-1.0, 2.0), p_rot_per_axis=0.6,
        p_scaling=0.7, scaling=(0.5, 2.0), p_synchronize_scaling_across_axes=0.5, mode_seg=mode,
        mode_image=mode, padding_mode_image="constant", padding_value_image=values[0],
        border_mode_seg="constant", padding_value_seg=values[1],
    )  # fmt: skip
    x, labels = batch_of(case, 12)
    transforms = ComposeTransforms([transform])
    found, expected = (made(transforms, x, labels, 1) for made in (our_result, nnunet_result))
    if mode == "bilinear":
        assert_same(found, expected)
    else:  # a place between two voxels may go to the other
        assert (found[0] != expected[0]).float().mean() < 2e-4
        assert (found[1] != expected[1]).float().mean() < 2e-4


def test_several_channels_of_labels_are_resampled_alike() -> None:
    x, labels = batch_of(CASES["3d"], 8)
    labels = torch.cat([labels, labels.flip(2)], 1)
    transform = SpatialTransform(CASES["3d"]["patch"], 0, False, p_rotation=1, rotation=(-1, 1))
    transforms = ComposeTransforms([transform])
    assert_same(*(made(transforms, x, labels, 1) for made in (our_result, nnunet_result)))


@pytest.mark.parametrize("axes", [(0, 1, 2), (1,), ()])
def test_only_allowed_axes_are_mirrored(axes: tuple[int, ...]) -> None:
    x, labels = batch_of(CASES["3d"], 10)
    transforms = ComposeTransforms([MirrorTransform(axes)])
    found, expected = (made(transforms, x, labels, 4) for made in (our_result, nnunet_result))
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])
    assert torch.equal(found[0], x) != bool(axes)


def test_labels_are_masked_removed_merged_and_downsampled_as_nnunet_does() -> None:
    x, labels = batch_of(CASES["2d"], 4)
    both = torch.cat([labels, labels.flip(2)], 1)
    for parts in (
        [MaskImageTransform([1], 0, -7.0)],
        [MaskImageTransform([])],
        [RemoveLabelTransform(-1, 0)],
        [RemoveLabelTransform(2, 1, [1])],
        [ConvertSegmentationToRegionsTransform([[1, 2], 3, (2,)], 1)],
        [DownsampleSegForDSTransform([1, 0.5, (0.25, 0.5)])],
        [
            ConvertSegmentationToRegionsTransform([[1, 2], 3]),
            DownsampleSegForDSTransform([1, 0.5]),
        ],
    ):
        transforms = ComposeTransforms(parts)
        found, expected = (made(transforms, x, both, 0) for made in (our_result, nnunet_result))
        assert torch.equal(found[0], expected[0])
        pairs = zip(found[1], expected[1], strict=True)
        assert all(torch.equal(one, other) for one, other in pairs)
