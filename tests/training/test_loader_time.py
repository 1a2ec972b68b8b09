"""The line about waiting: what is counted, when it is said, and which fix it names."""

from __future__ import annotations

import time

import pytest
import torch

from semi_nnunet.data.loading import StepLoader
from semi_nnunet.training.loader_time import LoaderTime, waiting_line

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("share", "device", "augmentation", "fix"),
    [
        (0.4, CPU, "workers", None),
        (0.15, CUDA, "workers", None),
        (0.16, CUDA, "workers", "--set augmentation=device"),
        (0.16, CUDA, "device", "nnUNet_n_proc_DA"),
    ],
)
def test_the_fix_is_named_where_a_gpu_waits_much(share, device, augmentation, fix):
    line = waiting_line(share, augmentation, device)
    assert f"waited {share:.0%} of the time" in line and "\n" not in line
    assert fix in line if fix else "Fix" not in line
    assert ("augmentation=device" in line) == (fix is not None and augmentation == "workers")


class Slow:
    """Batches that take a while, the first a long one."""

    def __getitem__(self, step: int) -> int:
        time.sleep(2.0 if step == 0 else 0.02)
        return step


def test_all_waiting_but_for_the_first_batch_counts():
    loader = StepLoader(Slow(), 0, 0, False)  # type: ignore[arg-type]
    assert loader.begun is None and next(loader) == 0 and loader.waited == 0
    for _ in range(3):
        next(loader)
    assert 0.06 <= loader.waited < 2.0


def test_it_is_said_once_and_not_before_there_was_a_batch():
    said: list[str] = []
    told = LoaderTime("workers", CUDA, said.append)
    loader = StepLoader(Slow(), 0, 0, False)  # type: ignore[arg-type]
    told.tell_once(loader)
    told.tell_once(iter([1, 2]))  # which tells nothing of its time
    assert not said
    loader.begun, loader.waited = time.perf_counter() - 2, 1.0
    told.tell_once(loader)
    told.tell_once(loader)
    assert len(said) == 1 and ("waited 50%" in said[0] or "waited 49%" in said[0])


def test_a_training_says_it_after_its_first_epoch(make_trainer):
    trainer = make_trainer("SemiBaselineTrainer")
    for _ in range(2):
        trainer.train_step(next(trainer.dataloader_train))
    trainer.on_train_epoch_end([{}])
    with open(trainer.log_file, encoding="utf-8") as log:
        assert log.read().count("of the time for their batches") == 1
