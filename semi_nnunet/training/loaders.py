"""nnU-Net's data loaders made functions of the step, so that resuming needs no state of theirs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from semi_nnunet.data.batched_transforms import BatchedTransforms
from semi_nnunet.data.loading import StepDataset, StepLoader, reproducible
from semi_nnunet.data.sampling import pseudo_labelled_cases, sampling_probabilities
from semi_nnunet.settings.common import DEVICE, SemiSettings
from semi_nnunet.training.distributed import Ranks


def step_loaders(
    streams: Mapping[str, nnUNetDataLoader],
    validation: nnUNetDataLoader,
    settings: SemiSettings,
    ranks: Ranks,
    device: torch.device,
    first: int,
) -> tuple[StepLoader, StepLoader]:
    """The loaders of training and validation batches.

    Args:
        streams: name -> loader of each part of a training batch.
        validation: loader of the validation batches, the same in every epoch.
        settings: ``seed``, ``accumulate_batches``, ``augmentation``, steps of an epoch.
        ranks: of the training.
        device: that the batches go to.
        first: optimizer step to begin with.
    """
    workers, on_gpu = get_allowed_n_proc_DA(), device.type == "cuda"
    later = taken_from(streams) if settings.augmentation == DEVICE else {}
    steps = StepDataset(streams, settings.seed, ranks.number, settings.accumulate_batches, later)
    checks = StepDataset({"validation": validation}, settings.seed, ranks.number)
    period = settings.validation_steps_per_epoch
    return (
        StepLoader(steps, first, workers, on_gpu),
        StepLoader(checks, 0, workers // 2, on_gpu, period=period),
    )


def taken_from(streams: Mapping[str, nnUNetDataLoader]) -> dict[str, BatchedTransforms]:
    """The transforms of loaders, for the training's device; the loaders then cut patches alone.

    Args:
        streams: name -> loader; they are changed.

    Raises:
        UserError: there are transforms that only nnU-Net's own code knows.
    """
    taken = {name: BatchedTransforms(loader.transforms) for name, loader in streams.items()}
    for loader in streams.values():
        loader.transforms = None
    return taken


def make_repeatable(
    training: nnUNetDataLoader,
    validation: nnUNetDataLoader,
    preprocessed: str | Path,
    settings: SemiSettings,
) -> None:
    """Let the batches of nnU-Net's loaders follow from the random numbers alone.

    Args:
        training, validation: nnU-Net's loaders; they are changed.
        preprocessed: folder of the data set, which lists the pseudo-labelled cases.
        settings: ``labelled_share`` of the training patches.
    """
    for loader in (training, validation):
        loader.transforms = reproducible(loader.transforms)
    training.sampling_probabilities = sampling_probabilities(
        training.indices, pseudo_labelled_cases(preprocessed), settings.labelled_share
    )


def close_all(loaders: Iterable[StepLoader]) -> None:
    """End the worker processes of loaders."""
    for loader in loaders:
        loader.close()
