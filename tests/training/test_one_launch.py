"""A second launch of a fold is rejected, and does not disturb the first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from semi_nnunet.training.one_launch import TRAINING_LOCK, lock_fold
from semi_nnunet.util.errors import UserError

HOLD = """
import sys, time
from semi_nnunet.training.one_launch import lock_fold
lock_fold(sys.argv[1])
print("held", flush=True)
time.sleep(120)
"""


@pytest.fixture
def training(tmp_path: Path):
    """A process that trains the fold of the folder ``fold_0``."""
    words = [sys.executable, "-c", HOLD, str(tmp_path / "fold_0")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_launch_is_told_who_trains_and_removes_nothing(training, tmp_path: Path) -> None:
    leftover = tmp_path / "fold_0" / ".checkpoint_latest.pth.1.tmp"
    leftover.write_text("half")
    with pytest.raises(UserError, match=f"{training.pid} on {os.uname().nodename}") as error:
        lock_fold(tmp_path / "fold_0")
    assert "wait" in error.value.fix
    assert leftover.exists()


def test_a_killed_training_holds_nothing_and_its_leftovers_go(training, tmp_path: Path) -> None:
    leftover = tmp_path / "fold_0" / ".checkpoint_latest.pth.1.tmp"
    leftover.write_text("half")
    training.kill()
    training.wait()
    lock_fold(tmp_path / "fold_0")
    assert not leftover.exists()


def test_a_trainer_does_not_start_while_another_trains_the_fold(make_trainer) -> None:
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    folder = Path(trainer.output_folder)
    words = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        try:
            with pytest.raises(UserError, match="fold_0"):
                trainer.on_train_start()
            assert not (folder / "semi_settings.json").exists()
            assert (folder / TRAINING_LOCK).exists()
        finally:
            process.kill()
    trainer.on_train_start()
