"""nnU-Net's transforms and the batched ones on the same patches, with the same random numbers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from batchgeneratorsv2.transforms.intensity.gaussian_noise import GaussianNoiseTransform
from batchgeneratorsv2.transforms.utils.compose import ComposeTransforms
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch.nn import functional as F

from semi_nnunet.loading.batched_transforms import BatchedTransforms
from semi_nnunet.loading.steps import make_reproducible
from semi_nnunet.util.seeds import seeded

CASES: dict[str, dict[str, Any]] = {
    "2d": {"patch": (24, 20), "first": (37, 33), "scales": [[1, 1], [0.5, 0.5]]},
    "3d": {"patch": (12, 14, 10), "first": (19, 21, 18), "scales": [[1, 1, 1], [0.5, 0.5, 0.5]]},
    "dummy 2d": {"patch": (6, 20, 16), "first": (6, 31, 27), "scales": None, "flat": True},
    "small": {"patch": (16, 17, 9), "first": (12, 17, 11), "scales": None},
}
each_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def nnunet_transforms(
    case: dict[str, Any], noise: bool = False, rotation: float = 0.5, **options: Any
) -> ComposeTransforms:
    """nnU-Net's training transforms; without noise, whose fields are drawn elsewhere."""
    axes = tuple(range(len(case["patch"])))
    flat = case.get("flat", False)
    transforms = nnUNetTrainer.get_training_transforms(
        case["patch"], (-rotation, rotation), case["scales"], axes, flat, **options
    )
    transforms = make_reproducible(transforms)
    kept = [part for part in transforms.transforms if noise or not is_noise(part)]
    return ComposeTransforms(kept)


def is_noise(part: Any) -> bool:
    return isinstance(getattr(part, "transform", part), GaussianNoiseTransform)


def batch_of(case: dict[str, Any], size: int, channels: int = 2) -> tuple[torch.Tensor, ...]:
    """Smooth images, and labels -1 (padding) to 3 in blobs."""
    torch.manual_seed(3)
    few = [max(2, edge // 4) for edge in case["first"]]
    mode = "bilinear" if len(few) == 2 else "trilinear"

    def smooth(count: int) -> torch.Tensor:
        return F.interpolate(torch.randn(size, count, *few), case["first"], mode=mode)

    field = smooth(1)
    labels = sum((field > level).to(torch.int16) for level in (-0.4, 0.1, 0.5, 0.7)) - 1
    return smooth(channels), labels


def nnunet_result(transforms: Any, x: torch.Tensor, labels: torch.Tensor, seed: int) -> Any:
    """What nnU-Net's loader would make of the samples, one after the other."""
    with seeded(seed):
        made = [
            transforms(image=image.clone(), segmentation=label.clone())
            for image, label in zip(x, labels, strict=True)
        ]
    found = [sample["segmentation"] for sample in made]
    stacked = (
        [torch.stack(level) for level in zip(*found, strict=True)]
        if isinstance(found[0], list)
        else torch.stack(found)
    )
    return torch.stack([sample["image"] for sample in made]), stacked


def our_result(transforms: Any, x: torch.Tensor, labels: torch.Tensor, seed: int) -> Any:
    ours = BatchedTransforms(transforms)
    with seeded(seed):
        drawn = ours.draw(x)
    return ours(x, labels, drawn)


def assert_same(found: Any, expected: Any) -> None:
    """Images to rounding; labels but for the odd voxel that lies exactly between two."""
    torch.testing.assert_close(found[0], expected[0], rtol=1e-3, atol=1e-3)
    levels = [found[1], expected[1]]
    pairs = zip(*levels, strict=True) if isinstance(found[1], list) else [levels]
    for ours, theirs in pairs:
        assert ours.dtype == theirs.dtype and ours.shape == theirs.shape
        assert (ours != theirs).float().mean() < 2e-4
