"""Continuing from checkpoints: from the right file, with the right settings."""

from __future__ import annotations

from pathlib import Path

import pytest

from semi_nnunet.util.errors import UserError
from tests.trainers import run_epochs


def test_checkpoint_of_another_training_is_refused(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, epochs=1)
    run_epochs(trainer, 1)
    path = str(Path(trainer.output_folder) / "checkpoint_best.pth")
    with pytest.raises(UserError, match="belongs to another training") as refused:
        make_trainer("SemiUncertaintyAwareTrainer", "3d_fullres", start=False).load_checkpoint(path)
    assert {problem.where for problem in refused.value.problems} >= {
        "trainer",
        "configuration",
        "architecture",
    }
    with pytest.raises(UserError, match="classes or regions"):
        make_trainer("SemiMeanTeacherTrainer", kind="regions", start=False).load_checkpoint(path)


def test_damaged_newest_checkpoint_falls_back_to_the_best_readable_one(make_trainer):
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
    assert any("WARNING" in line and "checkpoint_latest.pth is damaged" in line for line in log)


def test_changed_settings_are_named_when_training_continues(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(trainer, 1)
    resumed = make_trainer("SemiMeanTeacherTrainer", start=False, consistency_weight=3.0)
    log = []
    resumed.print_to_log_file = lambda *args, **kwargs: log.append(" ".join(map(str, args)))
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert any("consistency_weight: 10.0 -> 3.0" in line for line in log)


def test_more_advanced_best_checkpoint_is_continued_from(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False, save_every_epochs=2)
    run_epochs(trainer, 3)
    trainer.current_epoch -= 1
    trainer.save_checkpoint(str(Path(trainer.output_folder) / "checkpoint_best.pth"))
    resumed = make_trainer("SemiMeanTeacherTrainer", start=False, save_every_epochs=2)
    resumed.load_checkpoint(str(Path(trainer.output_folder) / "checkpoint_latest.pth"))
    assert resumed.current_epoch == 3


def test_validation_reads_the_named_checkpoint_and_no_other(make_trainer, prepared_dataset):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    run_epochs(trainer, 1)
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    final.write_bytes(b"damaged")
    validating = make_trainer("SemiMeanTeacherTrainer", start=False)
    validating.resuming = False  # as nnUNetv2_train --val
    with pytest.raises(UserError, match=r"checkpoint_final\.pth is damaged"):
        validating.load_checkpoint(str(final))
