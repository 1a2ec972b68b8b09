"""Collectives of a distributed (DDP) training.

Gradients of all terms and networks are averaged once a step (:mod:`gradients`), so that a
method needs neither DDP's wrapper nor its own collectives.
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
from torch import distributed as dist
from torch import nn

from semi_nnunet.util.errors import UserError

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """The processes of a training, and this process's place among them.

    >>> [Ranks(rank, world_size=3).shard_size(8) for rank in range(3)]
    [3, 3, 2]

    Args:
        rank: number of this process, from 0.
        world_size: number of processes; 1 if the training is not distributed.
    """

    rank: int = 0
    world_size: int = 1

    @classmethod
    def from_training(cls, is_ddp: bool) -> Ranks:
        """Return the ranks of the process group, or those of a single process."""
        return cls(dist.get_rank(), dist.get_world_size()) if is_ddp else cls()

    def shard_size(self, batch_size: int) -> int:
        """Return the number of patches of a batch that this process loads."""
        return batch_size // self.world_size + (self.rank < batch_size % self.world_size)

    def require_divisible(self, batch_size: int, equal_shards: bool) -> None:
        """Raise if the labelled batch cannot be divided among the processes.

        Args:
            batch_size: number of patches of all processes together.
            equal_shards: whether shards must be equal, as nnU-Net's batch Dice needs.
        """
        if batch_size < self.world_size or (equal_shards and batch_size % self.world_size):
            rule = "a multiple of" if equal_shards else "at least"
            raise UserError(
                f"labelled_batch_size must be {rule} the number of GPUs, {self.world_size}, got "
                f"{batch_size}",
                fix="train on fewer GPUs or change it in plans['semi']",
            )

    def require_equal(self, values: Mapping[str, Any]) -> None:
        """Raise if values differ between processes, which would end in a deadlock.

        Args:
            values: name, for the message -> value of this process.
        """
        gathered = self.all_gather(dict(values))
        different = [
            name for name in values if any(other[name] != values[name] for other in gathered)
        ]
        if different:
            raise UserError(
                f"the processes of this training differ in {', '.join(different)}",
                fix="let all machines share the folders nnUNet_preprocessed and nnUNet_results",
            )

    def log_change(self, previous: int | None, say: Callable[[str], None]) -> None:
        """Warn that a training continues with another number of processes.

        Args:
            previous: number of processes that wrote the checkpoint; None if unknown.
        """
        if previous not in (None, self.world_size):
            say(
                f"WARNING: {self.world_size} processes continue a training of {previous}. Steps "
                f"and schedule stay the same, the patches do not: each process draws its own"
            )

    def run_on_rank_zero(self, work: Callable[[], None]) -> None:
        """Run ``work`` on rank 0 while the others wait; raise its error on all ranks.

        Raises:
            UserError: raised by rank 0.
        """
        error: UserError | None = None
        if self.rank == 0:
            try:
                work()
            except UserError as raised:
                error = raised
        if error := self.all_gather(error)[0]:
            raise error

    def mean(self, values: dict[str, float]) -> dict[str, float]:
        """Return the mean of each value over the processes."""
        if self.world_size == 1:
            return values
        gathered = self.all_gather(values)
        return {key: float(np.mean([other[key] for other in gathered])) for key in values}

    def all_reduce(self, values: Sequence[T]) -> list[T]:
        """Return the sum of each number or array over the processes."""
        return [sum(v[1:], v[0]) for v in zip(*self.all_gather(values), strict=True)]

    def merge(self, results: dict[str, T]) -> dict[str, T]:
        """Return the union of the processes' dictionaries case -> result."""
        if self.world_size == 1:
            return results
        gathered = self.all_gather(results)
        return {case: result for shard in gathered for case, result in shard.items()}

    def all_gather(self, value: T) -> list[T]:
        """Return the values of all processes, by rank."""
        if self.world_size == 1:
            return [value]
        gathered: list[Any] = [None] * self.world_size
        dist.all_gather_object(gathered, value)
        return gathered

    def shard(self, gathered: Sequence[T]) -> T:
        """Return this process's element of an :meth:`all_gather` of any number of processes."""
        return gathered[self.rank % len(gathered)]

    def barrier(self) -> None:
        """Wait for the other processes."""
        if self.world_size > 1:
            dist.barrier()

    def broadcast_weights(self, networks: Iterable[nn.Module]) -> None:
        """Copy weights and buffers of rank 0 to all processes."""
        if self.world_size == 1:
            return
        for value in [v for network in networks for v in network.state_dict().values()]:
            dist.broadcast(value, src=0)


def select_device(requested: torch.device, nnunet_device: torch.device) -> torch.device:
    """Return the device of this process.

    In a DDP training nnU-Net uses the rank as the number of the GPU. That fails on a second
    machine, where ranks continue and GPUs start from 0. Launchers set LOCAL_RANK.

    Args:
        requested: device that the user requested.
        nnunet_device: device that nnU-Net selected.
    """
    if requested.type != "cuda":
        return requested
    has_launcher = dist.is_initialized() and os.environ.get("RANK") == str(dist.get_rank())
    return torch.device("cuda", int(os.environ["LOCAL_RANK"])) if has_launcher else nnunet_device


@contextmanager
def without_ddp_wrapper() -> Iterator[None]:
    """Keep nnU-Net from wrapping networks for DDP inside the block."""
    wrapper = stock.DDP
    stock.DDP = lambda network, device_ids: network
    try:
        yield
    finally:
        stock.DDP = wrapper
