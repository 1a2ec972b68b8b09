"""A data set in nnU-Net's folders on a disk that can be filled, and a training on it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from semi_nnunet.discovery.register import trainer_folders
from semi_nnunet.util.files import read_json, write_json
from tests.end_to_end.small_disk import Disk, Work, torn
from tests.trainers import save_as_trained

SHORT = {"epochs": 2, "steps_per_epoch": 1, "validation_steps_per_epoch": 1, "save_every_epochs": 1}
TRAIN = ("nnUNetv2_train", "911", "2d", "0", "-device", "cpu", "--c", "-tr")


@dataclass
class Bench:
    """nnU-Net's three folders on a disk that becomes full, and a data set in them.

    Args:
        disk: the disk.
        elsewhere: a folder on another one.
        dataset: number 911, prepared.
        make_trainer: of :mod:`tests.trainers`.
        monkeypatch: of the test.
    """

    disk: Disk
    elsewhere: Path
    dataset: Any
    make_trainer: Callable[..., Any]
    monkeypatch: pytest.MonkeyPatch

    def copy(self, *kinds: str) -> Path:
        """Copy "raw" or "preprocessed" of the data set to the disk; return the last folder."""
        for kind in ("raw", "preprocessed", "results"):
            (self.disk.folder / kind).mkdir(exist_ok=True)
            self.monkeypatch.setenv(f"nnUNet_{kind}", str(self.disk.folder / kind))
        self.monkeypatch.setenv("nnUNet_extTrainer", trainer_folders())
        for kind in kinds:
            shutil.copytree(getattr(self.dataset, kind), self.place(kind))
        return self.place(kinds[-1])

    def place(self, kind: str) -> Path:
        return self.disk.folder / kind / self.dataset.name

    def model(self, *kinds: str) -> str:
        """Make a trained model on the disk, and copies of the data set."""
        trained = save_as_trained(self.make_trainer("SemiBaselineTrainer"))
        shutil.copy(self.dataset.preprocessed / "dataset_fingerprint.json", trained)
        self.copy(*kinds)
        return str(shutil.copytree(trained, self.place("results") / trained.name))


def train(bench: Bench, **settings: int) -> Work:
    """Train a few steps, continuing from the last checkpoint."""
    plans = bench.copy("raw", "preprocessed") / "nnUNetPlans.json"
    write_json(plans, {**read_json(plans), "semi": {**SHORT, **settings}})
    return (*TRAIN, "SemiMeanTeacherTrainer")


def saved(disk: Disk) -> None:
    """Wait for the checkpoint of the first epoch, which is written during the next steps."""
    until = time.monotonic() + 60
    while not list(disk.folder.glob("results/*/*/fold_0/checkpoint_latest.pth")):
        assert time.monotonic() < until
        time.sleep(0.01)


def check_files(disk: Disk, before: dict[str, bytes]) -> None:
    """Assert that old files are unchanged and no new file is incomplete."""
    now = disk.files()
    assert {name: now.get(name) for name in before} == before
    assert torn(disk.folder, now) == {}
