"""Batches on the device: labelled patches, and a weak and a strong view of unlabelled ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from semi_nnunet.augment.batched import downsample_labels
from semi_nnunet.augment.mixing import TargetPatches
from semi_nnunet.augment.views import AppearanceView
from semi_nnunet.loading.batched_transforms import BatchedTransforms
from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.loading.unlabelled import UNLABELLED
from semi_nnunet.raw.classes import AnnotatedClasses

Batches = list[dict[str, dict[str, Any]]]  # of an optimizer step, as StepDataset makes them


@dataclass(eq=False)
class DeviceBatches:
    """Moves a loaded batch to the device and makes the views of its patches.

    Args:
        device: device to train on.
        labelled_view: appearance changes of labelled patches.
        strong_view: appearance changes that make the strong view of unlabelled patches.
        annotated: classes that each labelled case annotates; None for all.
        augmentations: stream -> nnU-Net's transforms that are applied on the device.
        unlabelled_value: of unlabelled voxels, see
            :class:`~semi_nnunet.loading.unlabelled.UnlabelledDataset`.
    """

    device: torch.device
    labelled_view: AppearanceView
    strong_view: AppearanceView
    annotated: AnnotatedClasses | None = None
    augmentations: Mapping[str, BatchedTransforms] = field(default_factory=dict)
    unlabelled_value: int = UNLABELLED

    def __call__(self, batch: dict[str, dict[str, Any]]) -> tuple[LabelledBatch, UnlabelledBatch]:
        """Return both parts of a batch; the unlabelled part is empty without such a stream."""
        raw = batch["labelled"]
        x, target = self._patches("labelled", raw)
        x = self.labelled_view(x)
        keys = tuple(raw["keys"])
        annotated = None if self.annotated is None else self.annotated.rows(keys, self.device)
        labelled = LabelledBatch(x, target, keys, annotated)
        if "unlabelled" not in batch:
            empty = labelled.x[:0]
            return labelled, UnlabelledBatch(empty, empty, empty[:, :1].bool(), ())
        raw = batch["unlabelled"]
        x_weak, target = self._patches("unlabelled", raw)
        mask = target[:, :1] == self.unlabelled_value  # others: padding, and annotated voxels
        keys = tuple(raw["keys"])
        return labelled, UnlabelledBatch(x_weak, self.strong_view(x_weak), mask, keys)

    def _patches(self, stream: str, raw: dict[str, Any]) -> tuple[torch.Tensor, Any]:
        """Return images and target of a stream after nnU-Net's transforms."""
        x, target = self._move(raw["data"]), self._move(raw["target"])
        if stream in self.augmentations:
            return self.augmentations[stream](x, target, raw["drawn"])
        return x, target

    def _move(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._move(item) for item in value]
        return value.to(self.device, non_blocking=True)


def paste_boxes(
    labelled: LabelledBatch,
    patches: TargetPatches,
    box: torch.Tensor,
    exclusive: bool,
    scales: Sequence[Sequence[float]] | None,
) -> LabelledBatch:
    """Paste boxes of other patches into labelled ones, images and labels alike.

    Args:
        patches: as many patches, with one-hot labels or regions.
        box: bool (B, 1, *spatial), the voxels to replace if ``patches`` have a target there.
        exclusive: whether the target has class numbers; otherwise it has regions, with the ignore
            mask as an additional last channel if there is an ignore label.
        scales: those of deep supervision if the target is a list.

    Returns:
        The mixed patches, with their target in the format of nnU-Net's loss.
    """
    box, levels = box & patches.mask, labelled.target
    target = levels[0] if isinstance(levels, list) else levels
    inside = patches.target.argmax(1, keepdim=True) if exclusive else patches.target
    inside = inside.to(target.dtype)
    is_ignored = torch.zeros_like(target[:, inside.shape[1] :])  # nothing is, in a box
    target = torch.where(box, torch.cat([inside, is_ignored], 1), target)
    return replace(
        labelled,
        x=torch.where(box, patches.x, labelled.x),
        target=downsample_labels(target, scales or ()) if isinstance(levels, list) else target,
        pasted=box,
    )


def list_batch_cases(batches: Batches) -> tuple[str, ...]:
    """Return the case of every patch of an optimizer step.

    >>> list_batch_cases([{"labelled": {"keys": ("case_1", "case_2")},
    ...                    "unlabelled": {"keys": ("case_7",)}}])
    ('case_1', 'case_2', 'case_7')
    """
    return tuple(key for batch in batches for stream in batch.values() for key in stream["keys"])
