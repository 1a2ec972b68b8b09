"""The view of a batch."""

import pytest
import torch

from semi_nnunet.augment.views import AppearanceView


@pytest.mark.parametrize(("strength", "probability"), [(0, 1), (1, 0)])
def test_a_view_without_changes_is_the_identity(strength, probability):
    x = torch.randn(2, 2, 6, 6)
    assert torch.equal(AppearanceView(strength, probability, [False, True])(x), x)


@pytest.mark.parametrize("spatial", [(8, 8), (5, 6, 7)])
def test_channels_of_the_previous_stage_stay_and_image_channels_change(spatial):
    x = torch.randn(3, 4, *spatial)
    y = AppearanceView(1.0, 1.0, [False, False])(x)
    assert y.shape == x.shape
    assert torch.equal(y[:, 2:], x[:, 2:])
    assert not torch.equal(y[:, 0], x[:, 0]) and not torch.equal(y[:, 1], x[:, 1])


def test_voxels_outside_the_body_stay_zero_if_nnunet_keeps_them_zero():
    x = torch.randn(3, 2, 8, 8)
    x[:, :, :3] = 0
    y = AppearanceView(1.0, 1.0, [True, False])(x)
    assert not y[:, 0, :3].any()
    assert y[:, 1, :3].any()
    assert y[:, 0, 3:].all()


def test_channels_that_nnunet_does_not_mask_do_not_decide_what_is_outside():
    x = torch.randn(3, 2, 8, 8)
    x[:, 0, :3] = 0  # MR of a brain; CT of air is not 0
    y = AppearanceView(1.0, 1.0, [True, False])(x)
    assert not y[:, 0, :3].any() and y[:, 0, 3:].all()


def test_a_zero_in_only_one_channel_is_inside():
    x = torch.randn(3, 2, 8, 8)
    x[:, 0, :3] = 0
    y = AppearanceView(1.0, 1.0, [True, True])(x)
    assert y[:, 0, :3].any()
