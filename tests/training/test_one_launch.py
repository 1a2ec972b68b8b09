"""A second launch of a fold is refused, and takes nothing from the first."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from semi_nnunet.training.one_launch import LOCK, take_folder
from semi_nnunet.util.errors import UserError

HOLD = """
import sys, time
from semi_nnunet.training.one_launch import take_folder
take_folder(sys.argv[1])
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
    half = tmp_path / "fold_0" / ".checkpoint_latest.pth.1.tmp"
    half.write_text("half")
    named = rf"process {training.pid} on {os.uname().nodename} since 20.*Fix: wait for it"
    with pytest.raises(UserError, match=named):
        take_folder(tmp_path / "fold_0")
    assert half.exists()


def test_a_killed_training_holds_nothing_and_its_leftovers_go(training, tmp_path: Path) -> None:
    half = tmp_path / "fold_0" / ".checkpoint_latest.pth.1.tmp"
    half.write_text("half")
    training.kill()
    training.wait()
    take_folder(tmp_path / "fold_0")
    assert not half.exists()


def test_a_trainer_does_not_start_beside_another(make_trainer) -> None:
    trainer = make_trainer("SemiMeanTeacherTrainer", start=False)
    folder = Path(trainer.output_folder)
    words = [sys.executable, "-c", HOLD, str(folder)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout and process.stdout.readline() == "held\n"
        try:
            with pytest.raises(UserError, match=r"trains .*fold_0 already"):
                trainer.on_train_start()
            assert not (folder / "semi_settings.json").exists()
            assert (folder / LOCK).exists()
        finally:
            process.kill()
    trainer.on_train_start()
