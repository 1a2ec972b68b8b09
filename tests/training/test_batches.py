"""Batches on the device: sizes, masks, and views of the same voxels."""

from __future__ import annotations

import numpy as np
import pytest

from semi_nnunet.util.errors import UserError


def test_one_labelled_to_five_unlabelled_patches(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", labelled_batch_size=1, unlabelled_batch_size=5)
    batch = next(trainer.dataloader_train)[0]
    assert batch["labelled"]["data"].shape[0] == 1 and batch["unlabelled"]["data"].shape[0] == 5
    trainer.train_step([batch])


def test_the_mask_is_false_only_in_the_padding(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", "3d_fullres", mirror=False)
    loader = trainer.dataloader_train.dataset.streams["unlabelled"]
    loader.patch_size = loader.final_patch_size = (
        40,
        40,
        40,
    )  # larger than the image on every axis
    loader.need_to_pad = np.zeros(3, dtype=int)
    loader.transforms = None
    _, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    shape = (
        trainer.dataloader_train.dataset.streams["unlabelled"]
        ._data.load_case(unlabelled.keys[0])[0]
        .shape
    )
    assert unlabelled.mask[0].sum() == np.prod(shape[1:])
    assert (unlabelled.x_weak[~unlabelled.mask] == 0).all()


@pytest.mark.parametrize("configuration", ["2d", "3d_fullres"])
def test_unlabelled_patches_are_crops_of_the_image_unless_they_are_rotated(
    configuration, make_trainer
):
    trainer = make_trainer("SemiMeanTeacherTrainer", configuration, mirror=False)
    _, unlabelled = trainer.on_device(next(trainer.dataloader_train)[0])
    assert unlabelled.mask.all()  # the images are larger than the patch
    dataset = trainer.dataloader_train.dataset.streams["unlabelled"]._data
    for patch, case in zip(unlabelled.x_weak[:, 0].numpy(), unlabelled.keys, strict=True):
        image = dataset.load_case(case)[0][0]
        patch = patch if patch.ndim == 3 else patch[None]
        crops = np.lib.stride_tricks.sliding_window_view(image, patch.shape)
        assert (crops == patch).all((-3, -2, -1)).any()
    rotated = make_trainer(
        "SemiMeanTeacherTrainer", configuration, unlabelled_rotation_and_scaling=True
    )
    names = [
        type(transform).__name__
        for transform in rotated.dataloader_train.dataset.streams[
            "unlabelled"
        ].transforms.transforms
    ]
    assert "SpatialTransform" in names


def test_mixing_needs_two_unlabelled_patches(make_trainer):
    with pytest.raises(UserError, match="unlabelled_batch_size 1"):
        make_trainer("SemiMeanTeacherTrainer", unlabelled_batch_size=1)
    make_trainer("SemiMeanTeacherTrainer", unlabelled_batch_size=1, cutmix_probability=0.0)
