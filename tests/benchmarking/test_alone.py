"""Memory and loading of one trainer."""

from __future__ import annotations

import time
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from semi_nnunet.benchmarking import alone
from semi_nnunet.benchmarking.alone import measure_alone, memory_of_steps, seconds_a_batch
from semi_nnunet.benchmarking.work import Work
from semi_nnunet.util.errors import UserError


@pytest.mark.skipif(not alone.STATUS.is_file(), reason="the system does not tell")
def test_the_memory_of_a_step_is_what_it_needs_at_once_above_what_there_was() -> None:
    held = np.ones(100 * alone.MIB, np.uint8)  # what the process has before does not count

    def train_step(batch: int) -> None:
        first = np.ones(150 * alone.MIB, np.uint8)
        del first
        np.ones(200 * alone.MIB, np.uint8)

    trainer = SimpleNamespace(
        dataloader_train=iter([0]), device=torch.device("cpu"), train_step=train_step
    )
    assert memory_of_steps(trainer) == pytest.approx(200, abs=30) and len(held)


def test_batches_that_were_loaded_ahead_do_not_count(monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "2")

    def loader():
        for number in range(100):
            if number >= 5:
                time.sleep(0.01)
            yield number

    seconds = seconds_a_batch(loader())
    assert 0.01 <= seconds < 0.03


def test_a_trainer_is_measured(prepared_dataset, monkeypatch) -> None:
    monkeypatch.setenv("nnUNet_n_proc_DA", "0")
    work = Work(prepared_dataset().name, "2d", "nnUNetPlans", "cpu", threads=1, rounds=2)
    found = measure_alone(work, "SemiMeanTeacherTrainer")
    assert found.refused is None and found.loading and 0 < found.loading < 5


def test_a_mistake_is_told(monkeypatch) -> None:
    def refuses(work: Work, name: str) -> None:
        raise UserError("no images", fix="some")

    monkeypatch.setattr(alone, "ready", refuses)
    work = Work("1", "2d", "nnUNetPlans", "cpu", threads=1, rounds=2)
    assert measure_alone(work, "any").refused == "no images. Fix: some"
