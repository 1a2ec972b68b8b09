"""Optimizer, learning-rate schedule and supervised loss as the settings name them."""

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
from semi_nnunet.util.errors import UserError


class PlateauSchedule:
    """Multiply the rate by a factor when the training loss has not fallen for some epochs.

    nnU-Net calls ``step(epoch)`` at the start of an epoch; the loss is known at its end, by
    :meth:`observe`.
    """

    def __init__(self, optimizer: torch.optim.Optimizer, factor: float, patience_epochs: int):
        self.plateau = ReduceLROnPlateau(optimizer, factor=factor, patience=patience_epochs)

    def step(self, epoch: int) -> None:
        """Nothing: the rate changes in :meth:`observe`."""

    def observe(self, training_loss: float) -> None:
        """Take note of the epoch's mean training loss."""
        self.plateau.step(training_loss)

    def state_dict(self) -> dict[str, object]:
        return self.plateau.state_dict()

    def load_state_dict(self, state: dict[str, object]) -> None:
        self.plateau.load_state_dict(state)


class WarmUpSchedule(PolyLRScheduler):
    """nnU-Net's schedule, whose rate rises evenly over the first epochs.

    Args:
        optimizer: whose rate it sets.
        initial_lr: rate from which nnU-Net's schedule falls.
        epochs: of the training.
        warm_up_epochs: n; epoch k < n has (k + 1) / (n + 1) of nnU-Net's rate.
    """

    def __init__(
        self,
        optimizer: torch.optim.Optimizer,
        initial_lr: float,
        epochs: int,
        warm_up_epochs: int,
    ):
        self.warm_up_epochs = warm_up_epochs
        super().__init__(optimizer, initial_lr, epochs)

    def step(self, current_step: int | None = None) -> None:
        """Set the rate of an epoch; None: of the one after the last."""
        super().step(current_step)
        epoch = self.ctr - 1 if current_step in (None, -1) else current_step
        share = min(1.0, (epoch + 1) / (self.warm_up_epochs + 1))
        for group in self.optimizer.param_groups:
            group["lr"] *= share
        self._last_lr = [group["lr"] for group in self.optimizer.param_groups]


Schedule: TypeAlias = PolyLRScheduler | PlateauSchedule


def observe_loss(schedule: Schedule, training_loss: float) -> None:
    """Tell a schedule that follows the training loss the mean of an epoch."""
    if isinstance(schedule, PlateauSchedule):
        schedule.observe(training_loss)


def schedule_state(schedule: Schedule) -> dict[str, object] | None:
    """What a checkpoint keeps of a schedule; nnU-Net's follows from the epoch."""
    return schedule.state_dict() if isinstance(schedule, PlateauSchedule) else None


def restore_schedule(schedule: Schedule, state: dict[str, object] | None) -> None:
    """Take over :func:`schedule_state`."""
    if isinstance(schedule, PlateauSchedule) and state is not None:
        schedule.load_state_dict(state)


def build_optimizer(
    parameters: Iterable[nn.Parameter], settings: SemiSettings
) -> tuple[torch.optim.Optimizer, Schedule]:
    """The optimizer of ``parameters`` and the schedule of its learning rate."""
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


def with_deep_supervision(loss: nn.Module, scales: Sequence[Any] | None) -> nn.Module:
    """nnU-Net's weights of the outputs: 1, 1/2, ..., the lowest 0, normalised.

    A single output has weight 1 (nnU-Net divides 0 by 0 there). Without scales, which a network
    without deep supervision has, the loss is as it is.
    """
    if scales is None:
        return loss
    weights = np.array([1 / 2**i for i in range(len(scales))])
    if len(scales) > 1:
        weights[-1] = 0.0
    return DeepSupervisionWrapper(loss, weights / weights.sum())


def raise_if_batch_is_too_small(error: ValueError) -> None:
    """Say what to do where torch's batch normalisation has a single value to normalise over.

    Raises:
        UserError: the error is that one.
    """
    if "more than 1 value per channel" in str(error):
        raise UserError(
            "this network normalises over the batch what it pools to one value, and needs at "
            "least 2 patches of each kind on each GPU, got 1",
            fix="raise labelled_batch_size "
            "and unlabelled_batch_size in plans['semi'], or train on fewer GPUs",
        ) from error
