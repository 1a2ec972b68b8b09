"""Slabs of logits are resampled like nnU-Net resamples the whole image."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch
from nnunetv2.preprocessing.resampling.default_resampling import (
    resample_data_or_seg_to_shape,
    resample_data_or_seg_to_spacing,
)

from semi_nnunet.inference.resampling import GridPair, takes_nearest_planes
from semi_nnunet.inference.sliding_window import Slab

NNUNETS = partial(
    resample_data_or_seg_to_shape, is_seg=False, order=1, order_z=0, force_separate_z=None
)
GRIDS = {  # shape, target, spacing, target spacing
    "finer": ((7, 9, 8), (12, 15, 17), (2, 1.5, 1.5), (1.2, 0.9, 0.7)),
    "coarser": ((12, 15, 17), (7, 9, 8), (1, 1, 1), (1.7, 1.7, 2)),
    "much coarser": ((25, 15, 17), (5, 9, 8), (1, 1, 1), (5, 1.7, 2)),
    "thick planes, coarser": ((24, 9, 8), (12, 15, 13), (5, 1.5, 1.5), (10, 0.9, 0.9)),
    "thick planes, much coarser": ((25, 9, 8), (5, 15, 13), (5, 1.5, 1.5), (25, 0.9, 0.9)),
    "planes stay": ((6, 9, 8), (6, 15, 13), (2, 1.5, 1.5), (2, 0.9, 0.9)),
    "thick planes": ((6, 9, 8), (9, 15, 13), (9, 1.5, 1.5), (6, 0.9, 0.9)),
    "thick planes that stay": ((6, 9, 8), (6, 15, 13), (9, 1.5, 1.5), (9, 0.9, 0.9)),
    "a plane": ((1, 9, 8), (1, 15, 13), (999, 1, 1), (999, 0.6, 0.6)),
    "the same": ((6, 9, 8), (6, 9, 8), (1, 1, 1), (1, 1, 1)),
    "thick along another axis": ((9, 6, 8), (15, 9, 13), (1.5, 9, 1.5), (0.9, 6, 0.9)),
}


def in_slabs(logits: torch.Tensor, sizes: list[int]) -> list[Slab]:
    starts = np.cumsum([0, *sizes])
    return [
        Slab(int(start), logits[:, start : start + size])
        for start, size in zip(starts, sizes, strict=False)
    ]


@pytest.mark.parametrize("name", GRIDS)
@pytest.mark.parametrize("size", [1, 4, 99])
def test_resampled_logits_equal_nnunets(name, size, monkeypatch):
    shape, target, spacing, target_spacing = GRIDS[name]
    monkeypatch.setattr("semi_nnunet.inference.resampling.AT_A_TIME", 700)  # several chunks
    torch.manual_seed(0)
    logits = (3 * torch.randn(4, *shape)).half()
    expected = NNUNETS(logits, target, spacing, target_spacing)
    sizes = [min(size, shape[0] - start) for start in range(0, shape[0], size)]
    grids = GridPair(shape, target, spacing, target_spacing, NNUNETS)
    resampled = torch.cat([slab.logits for slab in grids.resampled(in_slabs(logits, sizes))], 1)
    assert torch.equal(resampled, torch.as_tensor(expected))


def test_another_function_of_the_plans_gets_the_whole_image():
    def doubled(logits, shape, spacing, target_spacing):
        return logits.repeat_interleave(2, 1)

    logits = torch.randn(2, 4, 3, 3)
    grids = GridPair((4, 3, 3), (8, 3, 3), (1, 1, 1), (0.5, 1, 1), doubled)
    (slab,) = grids.resampled(in_slabs(logits, [3, 1]))
    assert torch.equal(slab.logits, logits.repeat_interleave(2, 1))
    cubic = partial(resample_data_or_seg_to_spacing, order=3)
    assert takes_nearest_planes(cubic, 1, (1, 1, 1), (1, 1, 1)) is None
    assert takes_nearest_planes(NNUNETS, 1, (1, 1, 1), (1, 1, 1)) is False
    assert takes_nearest_planes(NNUNETS, 3, (1, 1, 1), (1, 1, 1)) is None
    assert takes_nearest_planes(NNUNETS, 1, (5, 1, 1), (1, 1, 1)) is True
    assert takes_nearest_planes(NNUNETS, 1, (1, 5, 1), (1, 1, 1)) is None
