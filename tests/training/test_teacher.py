"""An averaged teacher."""

from __future__ import annotations

import torch


def test_pretrained_weights_reach_the_teacher(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    trainer.initialize()
    with torch.no_grad():
        for parameter in (
            trainer.bare_network.parameters()
        ):  # as nnU-Net's -pretrained_weights does, before training
            parameter.fill_(0.5)
    trainer.on_train_start()
    assert all(
        (parameter == 0.5).all() for parameter in trainer.companion("teacher").module.parameters()
    )
