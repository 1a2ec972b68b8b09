"""The files that a training writes for people, and other loggers."""

from __future__ import annotations

import csv
import json
import time
from pathlib import Path

import pytest

from semi_nnunet.training import run_log
from semi_nnunet.training.cost import read_cost
from semi_nnunet.training.run_log import RateLimited, write_history_picture
from tests.trainers import run_epochs


def test_history_and_settings_are_written(make_trainer, monkeypatch):
    monkeypatch.setattr(run_log, "write_history_picture", write_history_picture)
    trainer = make_trainer("SemiUncertaintyAwareTrainer", start=False)
    run_epochs(trainer, 2)
    folder = Path(trainer.output_folder)
    rows = list(csv.DictReader((folder / "semi_history.csv").open()))
    expected = {
        *("epoch", "learning_rate", "loss/supervised", "loss/consistency", "weight/consistency"),
        *("mask_ratio", "foreground/pseudo_label", "foreground/labelled"),
        *("dice/deployed", "dice/student"),
    }
    assert len(rows) == 2 and expected <= set(rows[0])
    assert (folder / "semi_history.png").stat().st_size > 5000
    settings = json.loads((folder / "semi_settings.json").read_text())
    assert settings["settings"]["ema_decay"]["reason"] and len(settings["cases"]["unlabelled"]) == 4


@pytest.mark.parametrize("trainer_name", ["SemiMeanTeacherTrainer", "SemiBaselineTrainer"])
def test_the_log_begins_with_what_the_training_does(make_trainer, trainer_name):
    trainer = make_trainer(trainer_name)
    log = Path(trainer.log_file).read_text(encoding="utf-8")
    introduction, _, rest = log.partition("This is the configuration used by this training")
    assert rest and trainer_name in introduction and "semi_settings.json" in introduction
    labelled, unlabelled = (len(trainer.current_cases()[k]) for k in ("labelled", "unlabelled"))
    assert f"{labelled} labelled" in introduction
    reads_unlabelled = trainer_name != "SemiBaselineTrainer"
    assert (f"{unlabelled} unlabelled" in introduction) == reads_unlabelled
    assert ("imagesUn is not read" in introduction) != reads_unlabelled
    assert "unknown until the first epochs" in introduction
    assert log.count("Desired fold for training") <= 1


def test_pictures_show_the_last_epoch_when_the_training_ends(make_trainer, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        run_log, "write_history_picture", lambda history, path: drawn.append(len(history.rows))
    )
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    progress = trainer.run_log.guard_picture(lambda folder: (Path(folder) / "progress.png").touch())
    run_epochs(trainer, 4)
    progress(trainer.output_folder)
    (Path(trainer.output_folder) / "progress.png").unlink()
    progress(trainer.output_folder)
    trainer.on_train_end()
    assert drawn[0] == 1 and drawn[-1] == 4
    assert (Path(trainer.output_folder) / "progress.png").is_file()


def test_other_loggers_get_our_values(make_trainer):
    class Spy:
        def __init__(self):
            self.values = {}

        def update_config(self, config):
            pass

        def log(self, key, value, step):
            self.values[key] = value

    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    spy = Spy()
    trainer.logger.loggers.append(spy)
    run_epochs(trainer, 1)
    assert {"semi/loss/consistency", "semi/dice/student", "train_losses"} <= set(spy.values)


def test_one_process_writes_the_duration_of_a_validation(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    log, folder = trainer.run_log, Path(trainer.output_folder)
    folder.mkdir(parents=True, exist_ok=True)
    with log.time_validation(folder, cases=4, writes=False):
        pass
    assert read_cost(folder).seconds_a_case is None
    with log.time_validation(folder, cases=4, writes=True):
        time.sleep(0.2)
    seconds = read_cost(folder).seconds_a_case
    assert seconds is not None and 0.05 <= seconds < 0.5


def test_a_failed_validation_is_not_timed_and_a_disk_error_is_a_warning(make_trainer):
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    log, folder = trainer.run_log, Path(trainer.output_folder)
    with pytest.raises(ValueError, match="broken"), log.time_validation(folder, 4, writes=True):
        raise ValueError("broken")
    assert not (folder / "semi_cost.json").exists()
    lines: list[str] = []
    log.say = lines.append
    with log.time_validation(folder / "nowhere", 4, writes=True):
        pass
    assert len(lines) == 1 and lines[0].startswith("WARNING")


@pytest.mark.parametrize(("drawing", "epoch"), [(6.5, 60.0), (0.5, 1.0), (2.0, 500.0)])
def test_drawing_takes_at_most_its_share_and_the_last_epoch_is_drawn(
    drawing: float, epoch: float
) -> None:
    now, epochs, drawn = [0.0], [0], []

    def draw(folder: str) -> None:
        now[0] += drawing
        drawn.append((folder, epochs[0]))

    limited = RateLimited(draw, share=0.01, clock=lambda: now[0])
    while epochs[0] < 1000:
        epochs[0], now[0] = epochs[0] + 1, now[0] + epoch
        limited("fold_0")
    assert drawn[0] == ("fold_0", 1)
    pauses = 100 * drawing / epoch
    assert len(drawn) == pytest.approx(1000 / max(1.0, pauses), rel=0.1, abs=2)
    limited.flush()
    limited.flush()
    assert [number for _, number in drawn].count(1000) == 1


def test_a_drawing_that_fails_is_tried_again() -> None:
    def draw(folder: str) -> None:
        raise OSError("no space")

    limited = RateLimited(draw)
    for _ in range(2):
        with pytest.raises(OSError, match="no space"):
            limited("fold_0")
