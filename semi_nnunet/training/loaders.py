"""nnU-Net's data loaders as functions of the step, so that resuming needs none of their state."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.data_loader import nnUNetDataLoader
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA

from semi_nnunet.loading.batched_transforms import BatchedTransforms
from semi_nnunet.loading.steps import (
    StepDataset,
    StepLoader,
    compute_sampling_probabilities,
    make_reproducible,
)
from semi_nnunet.raw.folds import read_pseudo_labelled_cases
from semi_nnunet.settings.common import DEVICE, SemiSettings
from semi_nnunet.training.distributed import Ranks
from semi_nnunet.training.run_log import Say

NNUNET_SCALES = (0.85, 1.25)  # from which nnU-Net computes how large a patch to rotate and scale
LONG_WAIT = 0.15  # share of the time above which a GPU is too idle


def build_step_loaders(
    streams: Mapping[str, nnUNetDataLoader],
    validation: nnUNetDataLoader,
    settings: SemiSettings,
    ranks: Ranks,
    device: torch.device,
    first_step: int,
) -> tuple[StepLoader, StepLoader]:
    """Build the loaders of training and validation batches.

    Args:
        streams: name -> nnU-Net loader of each stream of a training batch.
        validation: nnU-Net loader of validation batches, which are the same in every epoch.
        settings: ``seed``, ``accumulate_batches``, ``augmentation`` and steps of an epoch.
        first_step: optimizer step to begin with.
    """
    workers, on_gpu = get_allowed_n_proc_DA(), device.type == "cuda"
    on_device = take_transforms(streams) if settings.augmentation == DEVICE else {}
    steps = StepDataset(streams, settings.seed, ranks.rank, settings.accumulate_batches, on_device)
    checks = StepDataset({"validation": validation}, settings.seed, ranks.rank)
    period = settings.validation_steps_per_epoch
    return (
        StepLoader(steps, first_step, workers, on_gpu),
        StepLoader(checks, 0, workers // 2, on_gpu, period=period),
    )


def take_transforms(streams: Mapping[str, nnUNetDataLoader]) -> dict[str, BatchedTransforms]:
    """Return the transforms of loaders for the device, and let the loaders only cut patches.

    Args:
        streams: name -> loader; changed in place.

    Raises:
        UserError: a transform is known to nnU-Net's own code only.
    """
    transforms = {name: BatchedTransforms(loader.transforms) for name, loader in streams.items()}
    for loader in streams.values():
        loader.transforms = None
    return transforms


def make_repeatable(
    training: nnUNetDataLoader,
    validation: nnUNetDataLoader,
    preprocessed: str | Path,
    settings: SemiSettings,
) -> None:
    """Make the batches of nnU-Net's loaders depend on random numbers only.

    Args:
        training: nnU-Net's loader; changed in place.
        validation: nnU-Net's loader; changed in place.
        preprocessed: preprocessed folder of the data set, with the list of pseudo-labelled cases.
        settings: ``labelled_share`` of the training patches.
    """
    for loader in (training, validation):
        loader.transforms = make_reproducible(loader.transforms)
    training.sampling_probabilities = compute_sampling_probabilities(
        training.indices, read_pseudo_labelled_cases(preprocessed), settings.labelled_share
    )


def limit_rotation(
    rotation: tuple[float, float], degrees: float, patch_size: Sequence[int], in_plane_only: bool
) -> tuple[tuple[float, float], Any] | None:
    """Limit nnU-Net's range of rotations.

    >>> limit_rotation((-math.pi, math.pi), 180, (32, 32), in_plane_only=False) is None
    True

    Args:
        rotation: nnU-Net's range in radians.
        degrees: largest rotation.
        in_plane_only: whether anisotropic patches are rotated slice by slice.

    Returns:
        The range in radians, and the size in voxels of the larger patch that is rotated and
        cropped; None if the limit changes nothing.
    """
    limit = math.radians(degrees)
    if limit >= max(rotation[1], -rotation[0]):
        return None
    limited = (max(rotation[0], -limit), min(rotation[1], limit))
    first_patch_size = get_patch_size(patch_size, *[limited] * 3, NNUNET_SCALES)
    if in_plane_only:
        first_patch_size[0] = patch_size[0]
    return limited, first_patch_size


class LoaderWaitLog:
    """Logs, after the first epoch, how long its steps waited for their batches."""

    def __init__(self, augmentation: str, device: torch.device, say: Say):
        self.augmentation, self.device, self.say = augmentation, device, say
        self._is_logged = False

    def log_once(self, loader: Iterator[Any]) -> None:
        """Log the waiting at the end of an epoch's steps; later calls have no effect.

        Args:
            loader: loader of the training's batches; ignored if it is not a :class:`StepLoader`.
        """
        if self._is_logged or not isinstance(loader, StepLoader) or loader.begun is None:
            return
        self._is_logged = True
        seconds = max(time.perf_counter() - loader.begun, 1e-9)
        self.say(describe_waiting(loader.waited / seconds, self.augmentation, self.device))


def describe_waiting(share: float, augmentation: str, device: torch.device) -> str:
    """Return a line on waiting for batches, with a fix if a GPU waits long.

    >>> describe_waiting(0.3, "workers", torch.device("cpu"))
    'The steps of this epoch waited 30% of the time for their batches.'

    Args:
        share: share of the epoch's time, in [0, 1].
    """
    line = f"The steps of this epoch waited {share:.0%} of the time for their batches."
    if device.type != "cuda" or share <= LONG_WAIT:
        return line
    workers = "more processes that load them (nnUNet_n_proc_DA), if the machine has idle cores"
    if augmentation == DEVICE:
        return f"{line} Fix: {workers}, or a faster disk"
    return f"{line} Fix: --set augmentation={DEVICE}, in a new training, or {workers}"
