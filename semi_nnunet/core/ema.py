"""A teacher whose weights are a moving average (Tarvainen & Valpola 2017, arXiv:1703.01780)."""

from __future__ import annotations

import copy

import torch
from torch import nn


def ema_decay_at(step: int, decay: float) -> float:
    """min(1 - 1 / (step + 1), decay): step 0 copies, the first steps average what there is."""
    return min(1.0 - 1.0 / (step + 1), decay)


class EmaTeacher(nn.Module):
    """A copy of the student that takes no gradient and is always in evaluation mode.

    Parameters are averaged; buffers (nnU-Net's InstanceNorm has none) are copied, so that a
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
        """teacher <- a teacher + (1 - a) student, a = :func:`ema_decay_at`, after step ``step``."""
        a = ema_decay_at(step, decay)
        mine_all: list[torch.Tensor] = list(self.module.parameters())
        theirs_all: list[torch.Tensor] = list(student.parameters())
        if a == 0.0:
            torch._foreach_copy_(mine_all, theirs_all)
        else:
            torch._foreach_lerp_(mine_all, theirs_all, 1.0 - a)
        for mine, theirs in zip(self.module.buffers(), student.buffers(), strict=True):
            mine.copy_(theirs)
