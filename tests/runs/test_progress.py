"""How far a training is, as its history or its logs say."""

from __future__ import annotations

import os

import pytest

from semi_nnunet.cli.main import main
from semi_nnunet.runs.progress import estimate_seconds_left, read_epoch_seconds
from semi_nnunet.training.history import History
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.files import write_json
from tests.runs.jobs import fake_job


def test_epochs_of_nnunets_own_trainer_are_read_from_its_logs(folders, capsys):
    job = fake_job(folders, "nnUNetTrainer")
    job.folder.mkdir(parents=True)

    def log(number, *epochs):
        lines = (
            f"10:00:00.1: Epoch {n} \n10:00:00.1: Epoch time: {100 + n}.5 s \n" for n in epochs
        )
        (job.folder / f"training_log_{number}.txt").write_text("".join(lines))
        os.utime(job.folder / f"training_log_{number}.txt", (number, number))

    log(1, 0, 1, 2, 3)
    for damage in (b"epoch,seconds\n0,\xff", b"", b"epoch,seconds\n0,soon\n"):
        (job.folder / "semi_history.csv").write_bytes(damage)
        assert read_epoch_seconds(job) == [100.5, 101.5, 102.5, 103.5]  # from the log
        with pytest.raises(UserError, match=r"semi_history\.csv must"):
            job.history()
    (job.folder / "semi_history.csv").unlink()
    log(2, 2, 3, 4)  # continued from the checkpoint of epoch 2
    assert (
        read_epoch_seconds(job) == [100.5, 101.5, 102.5, 103.5, 104.5]
        and estimate_seconds_left(job) is None
    )
    assert main(["status", "-d", folders.raw.name]) == 0
    assert f"{job}: begun; 5 epochs done, 2 min each\n" in capsys.readouterr().out
    log(3, 0)  # started again
    assert read_epoch_seconds(job) == [100.5]


def test_the_time_left_is_that_of_the_last_ten_epochs(empty):
    job = fake_job(empty, "SemiBaselineTrainer")
    job.folder.mkdir(parents=True)
    seconds = [1000.0] * 5 + [60.0 + n for n in range(10)]
    History([{"epoch": n, "seconds": s} for n, s in enumerate(seconds)]).write_csv(
        job.folder / "semi_history.csv"
    )
    assert (
        read_epoch_seconds(job) == seconds and estimate_seconds_left(job) is None
    )  # the number of epochs is unknown
    write_json(job.folder / "semi_settings.json", {"settings": {"epochs": {"value": 20}}})
    assert estimate_seconds_left(job) == pytest.approx(5 * 64.5)
    job.checkpoint.write_text("x")
    assert estimate_seconds_left(job) is None  # it has ended


def test_nothing_is_known_before_the_first_epoch(empty):
    job = fake_job(empty, "SemiBaselineTrainer")
    assert read_epoch_seconds(job) == [] and estimate_seconds_left(job) is None
    job.folder.mkdir(parents=True)
    write_json(job.folder / "semi_settings.json", {"settings": {"epochs": {"value": 20}}})
    assert estimate_seconds_left(job) is None
