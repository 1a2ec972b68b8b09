"""Measure one trainer in a process of its own: the memory of its steps, and its loading."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from semi_nnunet.benchmarking.work import Work, aside, ready, said
from semi_nnunet.util.errors import UserError

MIB = 2**20
STEPS, BATCHES = 4, 20
FORGET_PEAK, STATUS = Path("/proc/self/clear_refs"), Path("/proc/self/status")


@dataclass(frozen=True)
class Alone:
    """What a trainer needs that has a process for itself.

    Args:
        mib: the largest memory of its steps, of the GPU, or of this process above what it had
            before them; None where the system does not tell.
        loading: seconds a batch, of labelled and unlabelled patches together, while nothing else
            runs, by as many processes as nnU-Net's nnUNet_n_proc_DA says.
        refused: why it could not be measured.
    """

    mib: float | None = None
    loading: float | None = None
    refused: str | None = None


def measure_alone(work: Work, name: str) -> Alone:
    """Measure a trainer; nothing else may run in this process."""
    torch.set_num_threads(work.threads)
    with aside():
        try:
            trainer = ready(work, name)
            return Alone(memory_of_steps(trainer), seconds_a_batch(trainer.dataloader_train))
        except (UserError, RuntimeError, MemoryError) as error:
            return Alone(refused=said(error))


def memory_of_steps(trainer: nnUNetTrainer) -> float | None:
    """The largest memory of some steps, in MiB."""
    batch = next(trainer.dataloader_train)
    if trainer.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    before = psutil.Process().memory_info().rss
    with suppress(OSError):
        FORGET_PEAK.write_text("5", encoding="utf-8")
    for _ in range(STEPS):
        trainer.train_step(batch)
    if trainer.device.type == "cuda":
        return torch.cuda.max_memory_allocated() / MIB
    peak = peak_memory()
    return None if peak is None else (peak - before) / MIB


def peak_memory() -> int | None:
    """The largest resident memory of this process since its peak was last forgotten, in bytes."""
    with suppress(OSError):
        for line in STATUS.read_text(encoding="utf-8").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 1024
    return None


def seconds_a_batch(loader: Iterator[Any], batches: int = BATCHES) -> float:
    """How long a loader takes for a batch once what it had loaded ahead is used up."""
    for _ in range(2 * get_allowed_n_proc_DA() + 2):
        next(loader)
    began = time.perf_counter()
    for _ in range(batches):
        next(loader)
    return (time.perf_counter() - began) / batches
