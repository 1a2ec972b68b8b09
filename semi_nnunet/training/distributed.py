"""What the processes of a distributed (DDP) training share, gather and average.

Gradients of all terms and networks are averaged once a step, in one message, so that a method needs
no wrapper and no collective of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
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
                f"{batch_size}. Fix: train on fewer GPUs or change it in plans['semi']"
            )

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Each value averaged over the processes."""
        if self.count == 1:
            return values
        parts = self._gathered(values)
        return {key: float(np.mean([part[key] for part in parts])) for key in values}

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

    def average_gradients(self, networks: Iterable[nn.Module]) -> None:
        """Average the gradients over the processes, in one message."""
        if self.count == 1:
            return
        gradients = [p.grad for net in networks for p in net.parameters() if p.grad is not None]
        together = torch.cat([gradient.flatten() for gradient in gradients])
        dist.all_reduce(together)
        together /= self.count
        for gradient, part in zip(
            gradients, together.split([gradient.numel() for gradient in gradients]), strict=True
        ):
            gradient.copy_(part.view_as(gradient))

    def _gathered(self, value: T) -> list[T]:
        parts: list[Any] = [None] * self.count
        dist.all_gather_object(parts, value)
        return parts


def sum_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """``x`` added up over the processes, with its gradient."""
    summed: torch.Tensor = AllGatherGrad.apply(x).sum(0)
    return summed
