"""What the processes of a DDP training do together."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import distributed as dist

Summing = Callable[[torch.Tensor], torch.Tensor] | None  # adds up over the processes; None: alone


def sum_over_processes(x: torch.Tensor) -> torch.Tensor:
    """``x``, which takes no gradient, added up over the processes; alone, ``x`` itself."""
    if dist.is_available() and dist.is_initialized():
        x = x.clone()
        dist.all_reduce(x)
    return x


def mean_of_processes(x: torch.Tensor, summing: Summing) -> torch.Tensor:
    """A number averaged over the processes, without gradient.

    Where each process divides a sum by this mean of what is counted, and not by its own count, the
    mean over the processes is that of the whole batch, however the counted voxels are distributed.

    Args:
        x: a scalar.
        summing: adds up a tensor over the processes; None: there is one.
    """
    if summing is None:
        return x
    total, processes = summing(torch.stack([x.detach(), torch.ones_like(x)]))
    return total / processes
