"""Trainers that learn from confident pseudo labels, and slow versions of these labels."""

from __future__ import annotations

import torch

from semi_nnunet.core.pseudo_labels import hard_pseudo_label
from tests.trainers import WITHOUT_RAMP

SETTINGS = {**WITHOUT_RAMP, "threshold": 0.55, "class_wise_threshold": False}


def prepared(make_trainer, name, kind, **settings):
    """Return a trainer after one step, and its next batch."""
    trainer = make_trainer(name, kind=kind, **{**SETTINGS, **settings})
    trainer.train_step(next(trainer.dataloader_train))
    trainer.network.eval()
    return trainer, *trainer.on_device(next(trainer.dataloader_train)[0])


def remember_mixes(trainer) -> list:
    mixes, draw = [], trainer.cutmix
    trainer.cutmix = lambda like: (mixes.append(draw(like)), mixes[-1])[1]
    return mixes


def target_and_mask(trainer, unlabelled):
    """Return pseudo labels, and voxels with a confidence of .55 or more in every counted class."""
    probs = trainer.teacher_probs(unlabelled.x_weak)
    if trainer.exclusive:
        sure = probs.max(1, keepdim=True).values >= 0.55
    else:
        sure = (torch.maximum(probs, 1 - probs) >= 0.55).all(1, keepdim=True)
    return hard_pseudo_label(probs, trainer.exclusive), sure & unlabelled.mask
