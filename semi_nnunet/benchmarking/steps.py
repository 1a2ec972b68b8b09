"""Time the steps of trainers in turn, and count their operations; the floor is beside them."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, fields, replace
from functools import partial
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from semi_nnunet.benchmarking.alone import seconds_a_batch
from semi_nnunet.benchmarking.prediction import seconds_of_case
from semi_nnunet.benchmarking.work import Work, aside, ready, said
from semi_nnunet.discovery.listing import our_trainers
from semi_nnunet.discovery.names import BASELINE
from semi_nnunet.training.batches import Batches
from semi_nnunet.training.precision import compute_dtype
from semi_nnunet.training.trainer import SemiTrainer
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.timing import Seconds, in_turn

FEW_BATCHES = 5  # whose loading is timed, where that is to be quick
FLOOR = "labelled forward and backward pass"


@dataclass(frozen=True)
class Times:
    """What was measured of steps.

    Args:
        seconds: of the step of each trainer, and of the :data:`FLOOR`.
        operations: floating-point operations of these; no entry where they cannot be counted.
        loading: seconds a batch of those whose loading was measured, too.
        starts: seconds until the first step of a trainer is done.
        patches: that a step of a trainer loads, labelled and unlabelled ones together.
        case: seconds to predict a case; None: not measured.
        refused: trainer -> why it could not be measured.
    """

    seconds: dict[str, Seconds] = field(default_factory=dict)
    operations: dict[str, float] = field(default_factory=dict)
    loading: dict[str, float] = field(default_factory=dict)
    starts: dict[str, float] = field(default_factory=dict)
    patches: dict[str, int] = field(default_factory=dict)
    case: float | None = None
    refused: dict[str, str] = field(default_factory=dict)

    def with_those_of(self, later: Times) -> Times:
        """Both, those of what was measured again in place of the earlier ones."""
        both: dict[str, Any] = {
            part.name: {**getattr(self, part.name), **getattr(later, part.name)}
            for part in fields(self)
            if part.name != "case"
        }
        refused = {name: why for name, why in both.pop("refused").items()
                   if name not in later.seconds}  # fmt: skip
        return Times(**both, refused=refused, case=later.case or self.case)


def time_steps(work: Work, names: Sequence[str], quick: bool = False) -> Times:
    """Time a step of every trainer in turn, round after round, so that drift hits all alike.

    Args:
        work: what they train on.
        names: of the trainers; what is beside steps is measured of the baseline, if that is one.
        quick: measure loading here, too, and count no operations.
    """
    times = Times()
    torch.set_num_threads(work.threads)
    trainers, batches = dict[str, Any](), dict[str, Any]()
    with aside():
        if not quick:
            with variable("nnUNet_n_proc_DA", "0"):
                times.operations.update(count_operations(work, names))
        for name in names:  # processes that load are started before any thread computes
            began = time.perf_counter()
            try:
                with nullcontext() if quick else variable("nnUNet_n_proc_DA", "0"):
                    trainers[name] = ready(work, name)
                batches[name] = next(trainers[name].dataloader_train)
                times.patches[name] = patches_of(batches[name])
                times.starts[name] = time.perf_counter() - began
                if quick:
                    loader = trainers[name].dataloader_train
                    times.loading[name] = seconds_a_batch(loader, FEW_BATCHES)
                    end_workers(loader, trainers[name].dataloader_val)
            except (UserError, RuntimeError, MemoryError) as error:
                trainers.pop(name, None)
                times.refused[name] = said(error)
        parts: dict[str, Callable[[], Any]] = {}
        for name, trainer in trainers.items():
            parts[name], began = partial(trainer.train_step, batches[name]), time.perf_counter()
            try:
                parts[name]()
            except (UserError, RuntimeError, MemoryError) as error:
                del parts[name]
                times.refused[name] = said(error)
                continue
            times.starts[name] += time.perf_counter() - began
            if name == BASELINE:
                parts[FLOOR] = partial(labelled_pass, trainer, batches[name])
        times.seconds.update(in_turn(parts, work.rounds, torch.device(work.device)))
        if BASELINE in parts:
            return replace(times, case=seconds_of_case(trainers[BASELINE]))
    return times


def patches_of(batch: Any) -> int:
    """How many patches a step has loaded, of all streams together."""
    if isinstance(batch, dict):  # nnU-Net's own
        return len(batch["data"])
    return sum(len(stream["data"]) for part in batch for stream in part.values())


def end_workers(*loaders: Any) -> None:
    """End the processes of loaders, ours or nnU-Net's own."""
    for loader in loaders:
        end = getattr(loader, "close", None) or getattr(loader, "_finish", None)
        if end is not None:  # it loads in this process
            end()


def labelled_pass(trainer: SemiTrainer, batch: Batches) -> None:
    """The network forward on the labelled patches, nnU-Net's loss, and backward."""
    labelled, _ = trainer.on_device(batch[0])
    trainer.optimizer.zero_grad(set_to_none=True)
    dtype = compute_dtype(trainer.settings.mixed_precision, trainer.device)
    with nullcontext() if dtype is None else torch.autocast(trainer.device.type, dtype):
        loss = trainer.loss(trainer.network(labelled.x), labelled.target)
    (loss if trainer.grad_scaler is None else trainer.grad_scaler.scale(loss)).backward()


def count_operations(work: Work, names: Sequence[str]) -> dict[str, float]:
    """Floating-point operations of a step of each trainer of ours, and of the floor.

    They are counted by PyTorch on its device without values ("meta"), where a step takes no time;
    what needs values there cannot be counted, such as nnU-Net's own trainer.
    """
    operations: dict[str, float] = {}
    with variable("nnUNet_compile", "f"):
        for name in (one for one in names if one in our_trainers()):
            try:
                trainer = ready(replace(work, device="meta"), name, mixed_precision="none")
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
