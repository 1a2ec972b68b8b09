"""Sums and means over the processes of a DDP training; with one process, of its own values."""

from __future__ import annotations

from typing import Any

import torch
from torch import distributed as dist


class RankSum(torch.autograd.Function):
    """The sum of a tensor over the processes, added by rank; so are its gradients."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        gathered = [torch.zeros_like(x) for _ in range(dist.get_world_size())]
        dist.all_gather(gathered, x.contiguous())
        return torch.stack(gathered).sum(0)

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> torch.Tensor:
        gradient = gradient.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(gradient)
        return gradient


def has_other_processes() -> bool:
    """Return whether this process trains together with others."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def all_reduce_sum(x: torch.Tensor) -> torch.Tensor:
    """Sum ``x`` over the processes, with gradient; return ``x`` itself if there is one.

    >>> all_reduce_sum(torch.tensor(2.0))
    tensor(2.)
    """
    if not has_other_processes():
        return x
    total: torch.Tensor = RankSum.apply(x)
    return total


def all_reduce_mean(x: torch.Tensor) -> torch.Tensor:
    """Average a number over the processes, without gradient.

    If each process divides a sum by this mean of the counts, instead of by its own count, the mean
    over the processes is that of the whole batch, however the counted voxels are distributed.

    Args:
        x: a scalar.
    """
    if not has_other_processes():
        return x
    total, processes = all_reduce_sum(torch.stack([x.detach(), torch.ones_like(x)]))
    return total / processes
