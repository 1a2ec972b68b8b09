"""Rotation and mirroring of labelled patches."""

from __future__ import annotations

import math

import pytest


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_rotation_can_be_limited(make_trainer, configuration):
    def geometry(**settings):
        trainer = make_trainer("SemiBaselineTrainer", configuration, start=False, **settings)
        return trainer.configure_rotation_dummyDA_mirroring_and_inital_patch_size()

    stock_range, flat, stock_patch, axes = geometry()
    limited_range, *_ = geometry(max_rotation_degrees=10)
    assert limited_range == pytest.approx((-math.radians(10), math.radians(10)))
    again = geometry(max_rotation_degrees=180)  # nnU-Net never rotates further
    assert again[0] == stock_range and list(again[2]) == list(stock_patch)
    assert again[1] == flat and again[3] == axes


def test_mirroring_can_be_turned_off_for_training_and_prediction(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", mirror=False)
    assert trainer.inference_allowed_mirroring_axes is None
    for stream in trainer.dataloader_train.dataset.streams.values():
        assert "Mirror" not in str([type(part).__name__ for part in stream.transforms.transforms])
    assert make_trainer("SemiMeanTeacherTrainer").inference_allowed_mirroring_axes == (0, 1)


@pytest.mark.parametrize("mirror, limit", [(False, 30.0), (True, 180.0)])
@pytest.mark.parametrize("name", ["SemiBaselineTrainer", "SemiBCPTrainer"])
def test_where_orientation_matters_labelled_patches_are_rotated_less(
    name, mirror, limit, make_trainer
):
    assert make_trainer(name, mirror=mirror).settings.max_rotation_degrees == limit
    given = make_trainer(name, mirror=mirror, max_rotation_degrees=5.0)
    assert given.settings.max_rotation_degrees == 5.0
