"""nnU-Net's data loaders made functions of the step, so that resuming needs no state of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from semi_nnunet.data.loading import StepDataset, StepLoader
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.training.distributed import Ranks


def step_loaders(
    streams: Mapping[str, nnUNetDataLoader],
    validation: nnUNetDataLoader,
    settings: SemiSettings,
    ranks: Ranks,
    device: torch.device,
    epoch: int,
) -> tuple[StepLoader, StepLoader]:
    """The loaders of training and validation batches.

    Args:
        streams: name -> loader of each part of a training batch.
        validation: loader of the validation batches, the same in every epoch.
        settings: ``seed``, ``accumulate_batches``, steps of an epoch.
        ranks: of the training.
        device: that the batches go to.
        epoch: to begin with.
    """
    workers, on_gpu = get_allowed_n_proc_DA(), device.type == "cuda"
    steps = StepDataset(streams, settings.seed, ranks.number, settings.accumulate_batches)
    checks = StepDataset({"validation": validation}, settings.seed, ranks.number)
    first, period = epoch * settings.steps_per_epoch, settings.validation_steps_per_epoch
    return (
        StepLoader(steps, first, workers, on_gpu),
        StepLoader(checks, 0, workers // 2, on_gpu, period=period),
    )


def close_all(loaders: Iterable[StepLoader]) -> None:
    """End the worker processes of loaders."""
    for loader in loaders:
        loader.close()
