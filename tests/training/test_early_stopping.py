"""Trainings that end early, and stay so."""

from __future__ import annotations

from pathlib import Path


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


def test_training_that_stopped_early_stays_so_when_continued(make_trainer):
    given = {"epochs": 50, "early_stopping_patience_epochs": 1, "initial_lr": 0.0}
    trainer = make_trainer("SemiBaselineTrainer", start=False, **given)
    trainer.run_training()
    final = Path(trainer.output_folder) / "checkpoint_final.pth"
    again = make_trainer("SemiBaselineTrainer", start=False, **given)
    again.load_checkpoint(str(final))
    again.run_training()
    assert again.current_epoch == trainer.current_epoch < 50
    assert len(again.history.rows) == len(trainer.history.rows)
