"""Sums and means over the processes of a DDP training."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import distributed as dist

SumOverRanks = Callable[[torch.Tensor], torch.Tensor] | None  # None: there is one process


def all_reduce_sum(x: torch.Tensor) -> torch.Tensor:
    """Sum ``x``, without gradient, over the processes; return ``x`` itself if there is one.

    >>> all_reduce_sum(torch.tensor(2.0))
    tensor(2.)
    """
    if dist.is_available() and dist.is_initialized():
        x = x.clone()
        dist.all_reduce(x)
    return x


def all_reduce_mean(x: torch.Tensor, sum_over_ranks: SumOverRanks) -> torch.Tensor:
    """Average a number over the processes, without gradient.

    If each process divides a sum by this mean of the counts, instead of by its own count, the mean
    over the processes is that of the whole batch, however the counted voxels are distributed.

    Args:
        x: a scalar.
        sum_over_ranks: sums a tensor over the processes; None: there is one process.
    """
    if sum_over_ranks is None:
        return x
    total, processes = sum_over_ranks(torch.stack([x.detach(), torch.ones_like(x)]))
    return total / processes
