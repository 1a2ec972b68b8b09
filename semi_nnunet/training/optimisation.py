"""Optimizer, learning-rate schedule and deep supervision of the settings."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
import torch
from nnunetv2.training.loss.deep_supervision import DeepSupervisionWrapper
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from semi_nnunet.settings.common import SemiSettings


class PlateauSchedule:
    """A schedule that lowers the rate if the training loss has not fallen for some epochs.

    nnU-Net calls ``step(epoch)`` at the start of an epoch; :meth:`observe` is called at its end,
    when the loss is known.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, factor: float, patience_epochs: int):
        self.plateau = ReduceLROnPlateau(optimizer, factor=factor, patience=patience_epochs)

    def step(self, epoch: int) -> None:
        """Do nothing: the rate changes in :meth:`observe`."""

    def observe(self, training_loss: float) -> None:
        """Adapt the rate to the epoch's mean training loss."""
        self.plateau.step(training_loss)

    def state_dict(self) -> dict[str, object]:
        return self.plateau.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.plateau.load_state_dict(state)


class WarmUpSchedule(PolyLRScheduler):
    """nnU-Net's schedule with a linear warm-up over the first epochs.

    >>> optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    >>> schedule = WarmUpSchedule(optimizer, initial_lr=1.0, epochs=1000, warm_up_epochs=3)
    >>> schedule.step(0)
    >>> optimizer.param_groups[0]["lr"]
    0.25

    Args:
        initial_lr: rate at which nnU-Net's schedule starts.
        warm_up_epochs: n; epoch k < n has (k + 1) / (n + 1) of nnU-Net's rate.
    """

    def __init__(
        self, optimizer: torch.optim.Optimizer, initial_lr: float, epochs: int, warm_up_epochs: int
    ):
        self.warm_up_epochs = warm_up_epochs
        super().__init__(optimizer, initial_lr, epochs)

    def step(self, current_step: int | None = None) -> None:
        """Set the rate of an epoch; None for the epoch after the last one."""
        super().step(current_step)
        epoch = self.ctr - 1 if current_step in (None, -1) else current_step
        share = min(1.0, (epoch + 1) / (self.warm_up_epochs + 1))
        for group in self.optimizer.param_groups:
            group["lr"] *= share
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


Schedule: TypeAlias = PolyLRScheduler | PlateauSchedule


def update_schedule(schedule: Schedule, training_loss: float) -> None:
    """Pass an epoch's mean training loss to a schedule that depends on it."""
    if isinstance(schedule, PlateauSchedule):
        schedule.observe(training_loss)


def get_schedule_state(schedule: Schedule) -> dict[str, object] | None:
    """Return the state for a checkpoint; None for nnU-Net's, which follows from the epoch."""
    return schedule.state_dict() if isinstance(schedule, PlateauSchedule) else None


def restore_schedule(schedule: Schedule, state: dict[str, object] | None) -> None:
    """Restore the state that :func:`get_schedule_state` returned."""
    if isinstance(schedule, PlateauSchedule) and state is not None:
        schedule.load_state_dict(state)


def build_optimizer(
    parameters: Iterable[nn.Parameter], settings: SemiSettings
) -> tuple[torch.optim.Optimizer, Schedule]:
    """Build the optimizer of ``parameters`` and the schedule of its learning rate."""
    optimizer: torch.optim.Optimizer
    if settings.optimizer == "adam":
        optimizer = torch.optim.Adam(
            parameters, settings.initial_lr, weight_decay=settings.weight_decay
        )
    else:
        optimizer = torch.optim.SGD(
            parameters,
            settings.initial_lr,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            nesterov=settings.momentum > 0,
        )
    if settings.lr_schedule == "plateau":
        return optimizer, PlateauSchedule(
            optimizer, settings.plateau_factor, settings.plateau_patience_epochs
        )
    poly = optimizer, settings.initial_lr, settings.epochs
    if settings.warm_up_epochs:
        return optimizer, WarmUpSchedule(*poly, settings.warm_up_epochs)
    return optimizer, PolyLRScheduler(*poly)


def wrap_deep_supervision(loss: nn.Module, scales: Sequence[Any] | None) -> nn.Module:
    """Return a loss of all outputs with nnU-Net's weights: 1, 1/2, ..., the last 0, normalised.

    A single output has weight 1, where nnU-Net divides 0 by 0.

    Args:
        scales: scale of each output; None without deep supervision: the loss is returned as it is.
    """
    if scales is None:
        return loss
    weights = np.array([1 / 2**i for i in range(len(scales))])
    if len(scales) > 1:
        weights[-1] = 0.0
    return DeepSupervisionWrapper(loss, weights / weights.sum())
