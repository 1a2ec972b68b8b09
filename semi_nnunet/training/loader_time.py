"""How long the steps of a training waited for their batches: said once, with what to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch

from semi_nnunet.data.loading import StepLoader
from semi_nnunet.settings.common import DEVICE

MUCH = 0.15  # of the time, from which on a GPU is too idle


class LoaderTime:
    """Says after the first epoch which part of it the steps waited for the loader.

    Args:
        augmentation: the setting.
        device: that the training runs on.
        say: prints a line into the training's log.
    """

    def __init__(self, augmentation: str, device: torch.device, say: Callable[..., object]):
        self.augmentation, self.device, self.say = augmentation, device, say
        self._told = False

    def tell_once(self, loader: Iterator[Any]) -> None:
        """To be called when the steps of an epoch are done; later calls do nothing.

        Args:
            loader: of the training's batches; one that is not ours says nothing of its time.
        """
        if self._told or not isinstance(loader, StepLoader) or loader.begun is None:
            return
        self._told = True
        seconds = max(time.perf_counter() - loader.begun, 1e-9)
        self.say(waiting_line(loader.waited / seconds, self.augmentation, self.device))


def waiting_line(share: float, augmentation: str, device: torch.device) -> str:
    """The line of the log.

    Args:
        share: of the epoch's time, in which the steps waited.
        augmentation: the setting.
        device: that the training runs on.
    """
    line = f"The steps of this epoch waited {share:.0%} of the time for their batches."
    if device.type != "cuda" or share <= MUCH:
        return line
    workers = "more processes that load them (nnUNet_n_proc_DA), if the machine has idle cores"
    if augmentation == DEVICE:
        return f"{line} Fix: {workers}, or a faster disk"
    return f"{line} Fix: --set augmentation={DEVICE}, in a new training, or {workers}"
