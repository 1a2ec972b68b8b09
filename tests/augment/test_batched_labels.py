"""Labels of batches; equality with nnU-Net is tested with the steps."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from semi_nnunet.augment.batched_labels import (
    downsample_labels,
    fill_outside,
    replace_label,
    to_regions,
)

LABELS = torch.tensor([[[[-1, 0, 1], [2, 3, -1]]]], dtype=torch.int16)


def test_a_label_is_replaced_in_the_channels_that_are_named():
    channels = LABELS.repeat(1, 2, 1, 1)
    everywhere = replace_label(channels.clone(), -1, 0, None)
    assert everywhere.min() == 0
    assert torch.equal(everywhere == 0, (channels == -1) | (channels == 0))
    second = replace_label(channels, -1, 0, [1])
    assert (
        second is channels
        and torch.equal(second[:, :1], LABELS)
        and torch.equal(second[:, 1:], everywhere[:, 1:])
    )


def test_only_the_named_channels_are_filled_outside():
    x = torch.ones(1, 3, 2, 3)
    filled = fill_outside(x, LABELS[:, 0] < 0, [0, 2], -4.0)
    assert filled is x and (x[:, 1] == 1).all()
    expected = torch.tensor([[-4.0, 1, 1], [1, 1, -4.0]])
    assert torch.equal(x[0, 0], expected) and torch.equal(x[0, 2], expected)


def test_regions_are_unions_of_labels():
    regions = to_regions(LABELS[:, 0], [(1, 2), (3,)])
    assert regions.dtype == torch.bool and regions.shape == (1, 2, 2, 3)
    assert regions[0, 0].tolist() == [[False, False, True], [True, False, False]]
    assert regions[0, 1].tolist() == [[False, False, False], [False, True, False]]


def test_scales_keep_type_and_full_resolution():
    wide = LABELS.repeat_interleave(2, 2).repeat_interleave(2, 3)
    levels = downsample_labels(wide, [(1, 1), (0.5, 0.5)])
    assert levels[0] is wide and torch.equal(levels[1], LABELS)


@pytest.mark.parametrize("edge", range(3, 14))
@pytest.mark.parametrize("factor", [1, 0.5, 0.25, 1 / 3, 0.6])
def test_voxels_are_those_of_nearest_exact_of_any_size(edge, factor):
    labels = torch.randint(0, 5, (2, 1, edge, 12), dtype=torch.int16)
    size = [round(edge * factor), 6]
    expected = F.interpolate(labels.float(), size, mode="nearest-exact").to(torch.int16)
    assert torch.equal(downsample_labels(labels, [(factor, 0.5)])[0], expected)
