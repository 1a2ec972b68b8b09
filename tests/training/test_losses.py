"""Losses as the settings change them: focal loss, weights of classes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from semi_nnunet.core.losses import DiceAndVoxelLoss
from semi_nnunet.util.errors import UserError
from tests.trainers import WITHOUT_RAMP, run_epochs, same_weights, weights_of


@pytest.mark.parametrize("kind", ["labels", "regions", "regions_ignore"])
def test_published_variant_with_focal_loss_adam_and_plateau_trains_and_resumes(make_trainer, kind):
    variant = {
        "ema_decay": 0.99, "ema_decay_after_ramp_up": 0.999, "supervised_loss": "dice_focal",
        "optimizer": "adam",
        "initial_lr": 1e-4, "lr_schedule": "plateau", "plateau_patience_epochs": 0,
        "labelled_batch_size": 1,
        "unlabelled_batch_size": 5, "cutmix_probability": 0.0, "teacher_noise": 0.1,
    }  # fmt: skip
    trainer = make_trainer("SemiMeanTeacherTrainer", kind=kind, start=False, **variant)
    run_epochs(trainer, 4)
    rates = trainer.history.series("learning_rate")[1]
    resumed = make_trainer("SemiMeanTeacherTrainer", kind=kind, start=False, **variant)
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert resumed.lr_scheduler.state_dict() == trainer.lr_scheduler.state_dict()
    assert resumed.optimizer.param_groups[0]["lr"] == trainer.optimizer.param_groups[0]["lr"]
    assert all(np.isfinite(rates))


def test_class_weights_must_match_the_classes(make_trainer):
    make_trainer("SemiBaselineTrainer", class_weights=[0.5, 1, 1, 4])
    with pytest.raises(UserError, match=r"each of the 4 classes.*got 2"):
        make_trainer("SemiBaselineTrainer", class_weights=[1, 2])


@pytest.mark.parametrize("kind", ["labels", "regions"])
@pytest.mark.parametrize("source", ["labelled", "pseudo_labels"])
def test_rare_classes_weigh_more_by_their_voxels(make_trainer, kind, source):
    settings = {"class_weights_from": source, "epochs": 3, **WITHOUT_RAMP}
    trainer = make_trainer("SemiFixMatchTrainer", kind=kind, **settings)
    counted = trainer.companion("class_frequencies")
    seen = []
    count = counted.count
    counted.count = lambda labels, *rest: (seen.append(labels.shape[0]), count(labels, *rest))
    trainer.train_step(next(trainer.dataloader_train))
    assert len(seen) == (1 if source == "labelled" else 2)
    waits = make_trainer("SemiFixMatchTrainer", kind=kind, **settings, unlabelled_weight=0.0)
    waits.train_step(next(waits.dataloader_train))
    only = make_trainer(
        "SemiBaselineTrainer", kind=kind, **{**settings, "class_weights_from": "labelled"}
    )
    only.train_step(next(only.dataloader_train))  # what is not followed is not counted, either
    counts = [one.companion("class_frequencies").frequencies for one in (waits, only)]
    assert torch.equal(*counts)
    counted.frequencies.copy_(torch.linspace(0.9, 0.01, len(counted.frequencies)))
    losses = [module for module in trainer.loss.modules() if isinstance(module, DiceAndVoxelLoss)]
    for loss in (*losses, trainer.masked_loss):
        assert torch.equal(loss.class_weights(), counted()) and counted()[-1] > counted()[0]
    assert losses


def test_weights_by_frequencies_are_resumed(make_trainer):
    settings = {"class_weights_from": "pseudo_labels", **WITHOUT_RAMP}
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, **settings)
    run_epochs(trainer, 2)
    again = make_trainer("SemiMeanTeacherTrainer", start=False, **settings)
    again.load_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    run_epochs(again, 4)
    run_epochs(trainer, 4)
    frequencies = [t.companion("class_frequencies").frequencies for t in (trainer, again)]
    assert torch.equal(*frequencies)
    assert same_weights(weights_of(trainer.bare_network), weights_of(again.bare_network))
    changed = make_trainer("SemiMeanTeacherTrainer", start=False, **WITHOUT_RAMP)
    with pytest.raises(UserError, match=r"plans\['semi'\] differ in class_frequencies"):
        changed.load_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    with pytest.raises(UserError, match="class_weights_from asks for others"):
        make_trainer("SemiMeanTeacherTrainer", class_weights=[1, 1, 1, 2], **settings)
