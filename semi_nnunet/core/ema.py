"""A teacher whose weights are a moving average (Tarvainen & Valpola 2017, arXiv:1703.01780)."""

from __future__ import annotations

import copy

import torch
from torch import nn


def ema_decay_at(step: int, decay: float) -> float:
    """Return min(1 - 1 / (step + 1), decay): step 0 copies, the first steps average evenly.

    >>> [round(ema_decay_at(step, 0.99), 2) for step in (0, 1, 3, 1000)]
    [0.0, 0.5, 0.75, 0.99]
    """
    return min(1.0 - 1.0 / (step + 1), decay)


class EmaTeacher(nn.Module):
    """A copy of the student that receives no gradient and is always in evaluation mode.

    Parameters are averaged. Buffers (nnU-Net's InstanceNorm has none) are copied, so that a
    batch-normalised teacher uses the student's statistics.

    Args:
        student: the bare network, neither compiled nor wrapped for DDP.
    """

    def __init__(self, student: nn.Module):
        super().__init__()
        self.module = copy.deepcopy(student).requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> EmaTeacher:
        return super().train(False)

    @torch.no_grad()
    def update(self, student: nn.Module, step: int, decay: float) -> None:
        """Set teacher <- a teacher + (1 - a) student, a = :func:`ema_decay_at`, after ``step``."""
        a = ema_decay_at(step, decay)
        averages: list[torch.Tensor] = list(self.module.parameters())
        weights: list[torch.Tensor] = list(student.parameters())
        if a == 0.0:
            torch._foreach_copy_(averages, weights)
        else:
            torch._foreach_lerp_(averages, weights, 1.0 - a)
        for copied, buffer in zip(self.module.buffers(), student.buffers(), strict=True):
            copied.copy_(buffer)
