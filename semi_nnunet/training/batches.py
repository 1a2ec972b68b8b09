"""Batches on the device: labelled patches, and the weak and strong view of unlabelled ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from semi_nnunet.augment.views import AppearanceView
from semi_nnunet.data.annotated_classes import AnnotatedClasses
from semi_nnunet.data.batched_transforms import BatchedTransforms
from semi_nnunet.data.loading import LabelledBatch, UnlabelledBatch

Batches = list[dict[str, dict[str, Any]]]  # of an optimizer step, as StepDataset makes them


class DeviceBatches:
    """Moves a loaded batch to the device and makes the views of its patches.

    Args:
        device: to train on.
        labelled_view: changes of appearance of labelled patches.
        strong_view: those that make the strong view of unlabelled patches.
        annotated: which classes each labelled case annotates; None: all.

    Attributes:
        augmentations: stream -> nnU-Net's transforms that the loader has left to the device.
    """

    def __init__(
        self,
        device: torch.device,
        labelled_view: AppearanceView,
        strong_view: AppearanceView,
        annotated: AnnotatedClasses | None = None,
    ):
        self.device, self.labelled_view, self.strong_view = device, labelled_view, strong_view
        self.annotated = annotated
        self.augmentations: Mapping[str, BatchedTransforms] = {}

    def __call__(self, batch: dict[str, dict[str, Any]]) -> tuple[LabelledBatch, UnlabelledBatch]:
        """The batch on the device; without an unlabelled stream its part has no samples."""
        raw = batch["labelled"]
        x, target = self._patches("labelled", raw)
        x = self.labelled_view(x)
        keys, known = tuple(raw["keys"]), self.annotated
        annotated = None if known is None else known.rows(keys, self.device)
        labelled = LabelledBatch(x, target, keys, annotated)
        if "unlabelled" not in batch:
            nothing = labelled.x[:0]
            return labelled, UnlabelledBatch(nothing, nothing, nothing[:, :1].bool(), ())
        raw = batch["unlabelled"]
        x_weak, target = self._patches("unlabelled", raw)
        inside = target[:, :1] >= 0  # -1: padding
        keys = tuple(raw["keys"])
        return labelled, UnlabelledBatch(x_weak, self.strong_view(x_weak), inside, keys)

    def _patches(self, stream: str, raw: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """Images and target of a stream, as nnU-Net's transforms make them."""
        x, target = self._move(raw["data"]), self._move(raw["target"])
        if stream in self.augmentations:
            return self.augmentations[stream](x, target, raw["drawn"])
        return x, target

    def _move(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._move(item) for item in value]
        return value.to(self.device, non_blocking=True)


def cases_of(batches: Batches) -> tuple[str, ...]:
    """The case of every patch of an optimizer step."""
    return tuple(key for part in batches for stream in part.values() for key in stream["keys"])
