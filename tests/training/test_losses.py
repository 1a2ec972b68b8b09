"""The supervised loss of the settings: focal loss, class weights."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from semi_nnunet.core.losses import DiceAndVoxelLoss
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.training.losses import SUPERVISED_LOSSES
from semi_nnunet.util.errors import UserError
from tests.trainers import WITHOUT_RAMP, run_epochs, same_weights, weights_of


@pytest.mark.parametrize("kind", ["labels", "regions", "regions_ignore"])
def test_a_published_variant_with_focal_loss_adam_and_plateau_trains_and_resumes(
    make_trainer, kind
):
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


def test_every_choice_of_the_setting_has_a_loss():
    field = SemiSettings.__dataclass_fields__["supervised_loss"]
    assert tuple(SUPERVISED_LOSSES) == field.metadata["choices"]


def test_class_weights_must_match_the_classes(make_trainer):
    make_trainer("SemiBaselineTrainer", class_weights=[0.5, 1, 1, 4])
    with pytest.raises(UserError, match=r"class_weights.*4 classes.*got 2"):
        make_trainer("SemiBaselineTrainer", class_weights=[1, 2])


@pytest.mark.parametrize("kind", ["labels", "regions"])
@pytest.mark.parametrize("source", ["labelled", "pseudo_labels"])
def test_rare_classes_weigh_more_by_their_voxels(make_trainer, kind, source):
    settings = {"class_weights_from": source, "epochs": 3, **WITHOUT_RAMP}
    trainer = make_trainer("SemiFixMatchTrainer", kind=kind, **settings)
    frequencies = trainer.companion("class_frequencies")
    calls = []
    count = frequencies.count
    frequencies.count = lambda labels, *rest: (calls.append(len(labels)), count(labels, *rest))
    trainer.train_step(next(trainer.dataloader_train))
    assert len(calls) == (1 if source == "labelled" else 2)
    without_weight = make_trainer(
        "SemiFixMatchTrainer", kind=kind, **settings, unlabelled_weight=0.0
    )
    without_weight.train_step(next(without_weight.dataloader_train))
    baseline = make_trainer(
        "SemiBaselineTrainer", kind=kind, **{**settings, "class_weights_from": "labelled"}
    )
    baseline.train_step(next(baseline.dataloader_train))  # unused pseudo labels do not count
    counts = [
        item.companion("class_frequencies").frequencies for item in (without_weight, baseline)
    ]
    assert torch.equal(*counts)
    frequencies.frequencies.copy_(torch.linspace(0.9, 0.01, len(frequencies.frequencies)))
    losses = [module for module in trainer.loss.modules() if isinstance(module, DiceAndVoxelLoss)]
    for loss in (*losses, trainer.masked_loss):
        assert (
            torch.equal(loss.class_weights(), frequencies())
            and frequencies()[-1] > frequencies()[0]
        )
    assert losses


def test_class_frequencies_are_resumed(make_trainer):
    settings = {"class_weights_from": "pseudo_labels", **WITHOUT_RAMP}
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, **settings)
    run_epochs(trainer, 2)
    resumed = make_trainer("SemiMeanTeacherTrainer", start=False, **settings)
    resumed.load_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    run_epochs(resumed, 4)
    run_epochs(trainer, 4)
    frequencies = [t.companion("class_frequencies").frequencies for t in (trainer, resumed)]
    assert torch.equal(*frequencies)
    assert same_weights(weights_of(trainer.bare_network), weights_of(resumed.bare_network))
    changed = make_trainer("SemiMeanTeacherTrainer", start=False, **WITHOUT_RAMP)
    with pytest.raises(UserError, match="class_frequencies"):
        changed.load_checkpoint(f"{trainer.output_folder}/checkpoint_latest.pth")
    with pytest.raises(UserError, match="class_weights_from"):
        make_trainer("SemiMeanTeacherTrainer", class_weights=[1, 1, 1, 2], **settings)
