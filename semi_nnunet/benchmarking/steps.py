"""Time the steps of trainers in turn, and count their operations; the floor is beside them."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from semi_nnunet.benchmarking.work import BASELINE, Work, aside, ready
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.training.batches import Batches
from semi_nnunet.training.precision import compute_dtype
from semi_nnunet.training.trainer import SemiTrainer
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.failures import is_of_memory

UNCOUNTED = 3  # rounds before those that count, in which memory and kernels are found
FLOOR = "labelled forward and backward pass"


@dataclass(frozen=True)
class Seconds:
    """How long a repeated piece of work took: the median, and between which half of it lay."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Seconds:
        """The summary of two values or more."""
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass(frozen=True)
class Times:
    """What was measured of steps.

    Args:
        seconds: of the step of each trainer, and of the :data:`FLOOR`.
        operations: floating-point operations of these; no entry where they cannot be counted.
        refused: trainer -> why it could not be measured.
    """

    seconds: dict[str, Seconds] = field(default_factory=dict)
    operations: dict[str, float] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def time_steps(work: Work, names: Sequence[str]) -> Times:
    """Time a step of every trainer in turn, round after round, so that drift hits all alike.

    Args:
        work: what they train on.
        names: of the trainers; the baseline is among them.
    """
    times = Times()
    torch.set_num_threads(work.threads)
    with aside(), variable("nnUNet_n_proc_DA", "0"):  # batches are loaded once, before
        times.operations.update(count_operations(work, names))
        parts: dict[str, Callable[[], Any]] = {}
        for name in names:
            try:
                trainer = ready(work, name)
                batch = next(trainer.dataloader_train)
                parts[name] = partial(trainer.train_step, batch)
                if name == BASELINE:
                    parts[FLOOR] = partial(labelled_pass, trainer, batch)
                parts[name]()
            except (UserError, RuntimeError, MemoryError) as error:
                parts.pop(name, None)
                times.refused[name] = said(error)
        times.seconds.update(in_turn(parts, work.rounds, torch.device(work.device)))
    return times


def said(error: Exception) -> str:
    """Why a trainer could not be measured.

    Raises:
        Exception: it is a fault of this program.
    """
    if isinstance(error, UserError):
        return str(error)
    if is_of_memory(error):
        return "too little memory for it beside the others. Fix: measure it alone, with -tr"
    raise error


def labelled_pass(trainer: SemiTrainer, batch: Batches) -> None:
    """The network forward on the labelled patches, nnU-Net's loss, and backward."""
    labelled, _ = trainer.on_device(batch[0])
    trainer.optimizer.zero_grad(set_to_none=True)
    dtype = compute_dtype(trainer.settings.mixed_precision, trainer.device)
    with nullcontext() if dtype is None else torch.autocast(trainer.device.type, dtype):
        loss = trainer.loss(trainer.network(labelled.x), labelled.target)
    (loss if trainer.grad_scaler is None else trainer.grad_scaler.scale(loss)).backward()


def in_turn(
    parts: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device
) -> dict[str, Seconds]:
    """How long each part takes, one after the other in every round.

    Args:
        parts: by name.
        rounds: that count, two or more.
        device: that is waited for after each part.
    """
    times: dict[str, list[float]] = {name: [] for name in parts}
    for number in range(UNCOUNTED + rounds):
        for name, part in parts.items():
            began = time.perf_counter()
            part()
            if device.type == "cuda":
                torch.cuda.synchronize()
            if number >= UNCOUNTED:
                times[name].append(time.perf_counter() - began)
    return {name: Seconds.of(values) for name, values in times.items()}


def count_operations(work: Work, names: Sequence[str]) -> dict[str, float]:
    """Floating-point operations of a step of each trainer of ours, and of the floor.

    They are counted by PyTorch on its device without values ("meta"), where a step takes no time;
    what needs values there cannot be counted, such as nnU-Net's own trainer.
    """
    operations: dict[str, float] = {}
    with variable("nnUNet_compile", "f"):
        for name in (one for one in names if one in our_trainers()):
            try:
                trainer = ready(replace(work, device="meta"), name)
                batch = next(trainer.dataloader_train)
                trainer.non_finite.at_once = False
                trainer.train_step(batch)  # the first of an epoch does more
                operations[name] = counted(partial(trainer.train_step, batch))
                if name == BASELINE:
                    operations[FLOOR] = counted(partial(labelled_pass, trainer, batch))
            except (UserError, NotImplementedError):  # time_steps says what the mistake is
                continue
    return operations


def counted(part: Callable[[], Any]) -> float:
    """The floating-point operations of a piece of work."""
    with FlopCounterMode(display=False) as counter:
        part()
    return float(counter.get_total_flops())
