"""What the processes of a distributed (DDP) training share, gather and average.

Gradients of all terms and networks are averaged once a step (:mod:`gradient_average`), so that a
method needs no wrapper and no collective of its own.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer import nnUNetTrainer as stock
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from torch import distributed as dist
from torch import nn

from semi_nnunet.util.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The processes of a training.

    Args:
        number: of this process, from 0.
        count: how many there are; 1: the training is not distributed.
    """

    number: int = 0
    count: int = 1

    @classmethod
    def of_training(cls, is_ddp: bool) -> Ranks:
        """The ranks of the process group, or the only one."""
        return cls(dist.get_rank(), dist.get_world_size()) if is_ddp else cls()

    def share_of(self, batch_size: int) -> int:
        """How many patches of a batch this process loads."""
        return batch_size // self.count + (self.number < batch_size % self.count)

    def require_shareable(self, batch_size: int, equal_parts: bool) -> None:
        """Check that the labelled batch can be divided.

        Args:
            batch_size: patches of all processes together.
            equal_parts: nnU-Net gathers predictions for the batch's Dice, which needs equal parts.

        Raises:
            UserError: it cannot.
        """
        if batch_size < self.count or (equal_parts and batch_size % self.count):
            what = "a multiple of" if equal_parts else "at least"
            raise UserError(
                f"labelled_batch_size must be {what} the number of GPUs, {self.count}, got "
                f"{batch_size}",
                fix="train on fewer GPUs or change it in plans['semi']",
            )

    def require_same(self, found: Mapping[str, Any]) -> None:
        """Check what must agree before the first step, lest the processes wait for each other.

        Args:
            found: what it is -> of this process.

        Raises:
            UserError: naming what differs.
        """
        everywhere = self.listed(dict(found))
        different = [key for key in found if any(one[key] != found[key] for one in everywhere)]
        if different:
            raise UserError(
                f"the processes of this training differ in {', '.join(different)}",
                fix="let all machines share the folders nnUNet_preprocessed and nnUNet_results",
            )

    def tell_change(self, before: int | None, say: Callable[[str], None]) -> None:
        """Say that a training goes on with another number of processes.

        Args:
            before: how many wrote the checkpoint; None: it does not tell.
            say: prints a line into the training's log.
        """
        if before not in (None, self.count):
            say(
                f"WARNING: {self.count} processes go on with what {before} began. Steps and "
                f"schedule are the same; the patches are not, as each process draws its own"
            )

    def on_first(self, work: Callable[[], None]) -> None:
        """Do something on the first process, while the others wait; what it refuses, all refuse.

        Raises:
            UserError: of the first process.
        """
        refusal: UserError | None = None
        if self.number == 0:
            try:
                work()
            except UserError as error:
                refusal = error
        if refusal := self.listed(refusal)[0]:
            raise refusal

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Each value averaged over the processes."""
        if self.count == 1:
            return values
        parts = self._gathered(values)
        return {key: float(np.mean([part[key] for part in parts])) for key in values}

    def total(self, values: Sequence[T]) -> list[T]:
        """Each number or array added up over the processes."""
        return [sum(parts[1:], parts[0]) for parts in zip(*self.listed(values), strict=True)]

    def together(self, found: dict[str, T]) -> dict[str, T]:
        """Case -> what each process found of its share, all together."""
        if self.count == 1:
            return found
        return {case: one for part in self._gathered(found) for case, one in part.items()}

    def listed(self, value: T) -> list[T]:
        """What each process has, in their order."""
        return [value] if self.count == 1 else self._gathered(value)

    def own_of(self, values: Sequence[T]) -> T:
        """This process' part of what was :meth:`listed`, perhaps by more or fewer processes."""
        return values[self.number % len(values)]

    @property
    def summing(self) -> Callable[[torch.Tensor], torch.Tensor] | None:
        """What adds up a tensor over the processes, with its gradient; None where there is one."""
        return None if self.count == 1 else sum_over_ranks

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.count > 1:
            dist.barrier()

    def take_weights_of_first(self, networks: Iterable[nn.Module]) -> None:
        """Give all processes the weights and buffers of the first."""
        if self.count == 1:
            return
        for value in [v for network in networks for v in network.state_dict().values()]:
            dist.broadcast(value, src=0)

    def _gathered(self, value: T) -> list[T]:
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, value)
        return parts


def sum_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """``x`` added up over the processes, with its gradient."""
    summed: torch.Tensor = AllGatherGrad.apply(x).sum(0)
    return summed


def device_of_process(asked: torch.device, taken: torch.device) -> torch.device:
    """Where this process computes.

    In a DDP training nnU-Net takes the GPU whose number is the rank; on a second machine the ranks
    go on counting and the GPUs do not, and there may be none. Launchers tell the number on the
    machine by the variable LOCAL_RANK.

    Args:
        asked: by the user.
        taken: by nnU-Net.
    """
    if asked.type != "cuda":
        return asked
    told = dist.is_initialized() and os.environ.get("RANK") == str(dist.get_rank())
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if told else taken


@contextmanager
def without_wrapper() -> Iterator[None]:
    """Inside the block nnU-Net wraps no network for DDP: :class:`Ranks` averages the gradients."""
    before = stock.DDP
    stock.DDP = lambda network, device_ids: network
    try:
        yield
    finally:
        stock.DDP = before
