"""A training is continued from the right checkpoint, ends early, and suggests commands."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from semi_nnunet.training.reproducible import SuggestedCommands
from semi_nnunet.util.errors import UserError
from tests.trainers import run_epochs, same_weights, weights_of


def test_a_checkpoint_of_another_training_is_rejected(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, epochs=1)
    run_epochs(trainer, 1)
    path = str(Path(trainer.output_folder) / "checkpoint_best.pth")
    with pytest.raises(UserError, match="another training") as error:
        make_trainer("SemiUncertaintyAwareTrainer", "3d_fullres", start=False).load_checkpoint(path)
    assert {problem.where for problem in error.value.problems} >= {
        *("trainer", "configuration", "architecture")
    }
    with pytest.raises(UserError) as error:
        make_trainer("SemiMeanTeacherTrainer", kind="regions", start=False).load_checkpoint(path)
    assert "classes or regions" in {problem.where for problem in error.value.problems}


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without GPU")
def test_a_training_without_gpu_asks_for_another_device(make_trainer):
    trainer = make_trainer("SemiBaselineTrainer", device="cuda", start=False)
    with pytest.raises(UserError, match=r"-device cuda needs a GPU.*Fix: -device cpu"):
        trainer.on_train_start()


def test_a_damaged_checkpoint_is_replaced_by_the_newest_intact_one(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(trainer, 2)
    folder = Path(trainer.output_folder)
    latest = folder / "checkpoint_latest.pth"
    latest.write_bytes(latest.read_bytes()[:-1000])
    resumed = make_trainer("SemiMeanTeacherTrainer", start=False)
    log = []
    resumed.print_to_log_file = lambda *args, **kwargs: log.append(" ".join(map(str, args)))
    resumed.load_checkpoint(str(latest))
    assert 0 < resumed.current_epoch <= 2
    assert any("WARNING" in line and "checkpoint_latest.pth" in line for line in log)


def test_changed_settings_are_logged_when_a_training_continues(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(trainer, 1)
    resumed = make_trainer("SemiMeanTeacherTrainer", start=False, consistency_weight=3.0)
    log = []
    resumed.print_to_log_file = lambda *args, **kwargs: log.append(" ".join(map(str, args)))
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert any("consistency_weight: 10.0 -> 3.0" in line for line in log)


def test_a_more_advanced_best_checkpoint_is_continued(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, save_every_epochs=2)
    run_epochs(trainer, 3)
    trainer.current_epoch -= 1
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_best.pth"))
    resumed = make_trainer("SemiMeanTeacherTrainer", start=False, save_every_epochs=2)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert resumed.current_epoch == 3


def test_a_validation_reads_only_the_named_checkpoint(make_trainer, prepared_dataset):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(trainer, 1)
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    final.write_bytes(b"damaged")
    validating = make_trainer("SemiMeanTeacherTrainer", start=False)
    validating.resuming = False  # as nnUNetv2_train --val
    with pytest.raises(UserError, match=r"checkpoint_final\.pth"):
        validating.load_checkpoint(str(final))


def test_early_stopping_ends_the_training_with_a_final_checkpoint(make_trainer):
    trainer = make_trainer(
        "SemiBaselineTrainer",
        start=False,
        epochs=50,
        early_stopping_patience_epochs=2,
        initial_lr=0.0,
    )
    trainer.run_training()
    assert trainer.current_epoch < 50
    assert (Path(trainer.output_folder) / "checkpoint_final.pth").is_file()
    assert not (Path(trainer.output_folder) / "checkpoint_latest.pth").exists()


def test_an_undefined_dice_does_not_end_a_training(make_trainer, monkeypatch):
    trainer = make_trainer("SemiBaselineTrainer", start=False, early_stopping_patience_epochs=1)
    get_value = trainer.logger.get_value
    monkeypatch.setattr(
        trainer.logger, "get_value",
        lambda key, step: math.nan if (key, step) == ("ema_fg_dice", -1) else get_value(key, step),
    )  # fmt: skip
    trainer.run_training()
    assert trainer.current_epoch == trainer.num_epochs > 2


def test_after_a_training_the_best_network_can_be_validated(make_trainer):
    trainer = make_trainer("SemiBaselineTrainer", start=False)
    trainer.resuming = True  # as with --c --val_best
    trainer.run_training()
    best = Path(trainer.output_folder) / "checkpoint_best.pth"
    content = torch.load(best, weights_only=False)
    content["semi"]["student"] = {k: v + 1 for k, v in content["semi"]["student"].items()}
    content["current_epoch"] = 1
    torch.save(content, best)
    trainer.load_checkpoint(str(best))
    assert same_weights(weights_of(trainer.bare_network), content["semi"]["student"])


def test_a_training_that_stopped_early_does_not_continue(make_trainer):
    settings = {"epochs": 50, "early_stopping_patience_epochs": 1, "initial_lr": 0.0}
    trainer = make_trainer("SemiBaselineTrainer", start=False, **settings)
    trainer.run_training()
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    resumed = make_trainer("SemiBaselineTrainer", start=False, **settings)
    resumed.load_checkpoint(str(final))
    resumed.run_training()
    assert resumed.current_epoch == trainer.current_epoch < 50
    assert len(resumed.history.rows) == len(trainer.history.rows)
    patient = {**settings, "early_stopping_patience_epochs": 3}
    continued = make_trainer("SemiBaselineTrainer", start=False, **patient)
    continued.load_checkpoint(str(final))
    continued.run_training()
    assert trainer.current_epoch < continued.current_epoch < 50


COMMANDS = SuggestedCommands("Dataset042_P", "nnUNetPlans_cpu", "2d", "SemiCPSTrainer", None)


def test_a_missing_folder_is_reported_with_the_command_that_makes_it(tmp_path: Path) -> None:
    COMMANDS.require_preprocessed(tmp_path)
    with pytest.raises(UserError, match="2d") as error:
        COMMANDS.require_preprocessed(tmp_path / "nothing")
    assert error.value.fix == "semi_nnunet preprocess -d Dataset042_P -c 2d -p nnUNetPlans_cpu"


def test_the_previous_stage_is_trained_by_the_same_trainer() -> None:
    second = replace(COMMANDS, configuration="3d_cascade_fullres", previous_stage="3d_lowres")
    expected = "nnUNetv2_train Dataset042_P 3d_lowres FOLD -tr SemiCPSTrainer -p nnUNetPlans_cpu"
    assert second.train_previous_stage.endswith(expected)
