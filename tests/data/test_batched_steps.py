"""Every step, also with options that nnU-Net's own training leaves alone."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batchgeneratorsv2.transforms.intensity.brightness import MultiplicativeBrightnessTransform
from batchgeneratorsv2.transforms.intensity.contrast import BGContrast, ContrastTransform
from batchgeneratorsv2.transforms.intensity.gamma import GammaTransform
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

from semi_nnunet.data.batched_transforms import BatchedTransforms
from semi_nnunet.util.seeds import seeded
from tests.data.same_patches import CASES, assert_same, batch_of, nnunet_result, our_result

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
def test_where_no_channel_is_chosen_nothing_is_done(chosen: float) -> None:
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
