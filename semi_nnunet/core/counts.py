"""Voxel counts of each class: correct, wrong and missed ones."""

from __future__ import annotations

import torch

from semi_nnunet.core.losses import annotated_voxels
from semi_nnunet.core.partial_labels import per_voxel
from semi_nnunet.core.pseudo_labels import most_probable


def count_classes(
    logits: torch.Tensor,
    target: torch.Tensor,
    exclusive: bool,
    ignore_label: int | None = None,
    annotated: torch.Tensor | None = None,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Count true positives, false positives, false negatives and evaluated voxels of a batch.

    No one-hot tensor is made, because the network's activations still fill the memory.

    Args:
        logits: (B, classes or regions, *spatial).
        target: nnU-Net's at the same resolution: (B, 1, *spatial) class numbers; regions as 0 or 1,
            with the ignore mask as an additional last channel if there is an ignore label.
        exclusive: softmax classes; otherwise regions, predicted above 1/2.
        ignore_label: label of the voxels that are not counted.
        annotated: bool (B, C), the classes or regions that each sample annotates; None: all. A
            sample is evaluated only for these; other predicted classes count as background.
        mask: bool (B, 1, *spatial), the voxels that are counted; None: all.

    Returns:
        (4, foreground classes or regions), int64.
    """
    evaluated, classes = annotated_voxels(target, not exclusive, ignore_label), logits.shape[1]
    evaluated = evaluated if mask is None else evaluated & mask
    if exclusive:
        predicted = most_probable(logits)
        if annotated is not None:
            is_counted = annotated.gather(1, predicted.flatten(1)).view_as(predicted)
            predicted = predicted * is_counted
        pairs = target[:, 0].long() * classes + predicted
        pairs = torch.where(evaluated[:, 0], pairs, classes**2)
        table = count_occurrences(pairs.flatten(), classes**2 + 1)[:-1].view(classes, -1)
        tp, voxels = table.diagonal(), count_class_voxels(evaluated, classes, annotated)
        return torch.stack([tp, table.sum(0) - tp, table.sum(1) - tp, voxels])[:, 1:]
    counted = evaluated if annotated is None else evaluated & per_voxel(annotated, logits.ndim)
    predicted, true = (logits > 0) & counted, (target[:, :classes] > 0.5) & counted
    axes = (0, *range(2, logits.ndim))
    cases = (predicted & true, predicted & ~true, true & ~predicted)
    voxels = count_class_voxels(evaluated, classes, annotated)
    return torch.stack([*(case.sum(axes) for case in cases), voxels])


def count_class_voxels(
    mask: torch.Tensor, classes: int, annotated: torch.Tensor | None
) -> torch.Tensor:
    """Count the voxels of a mask (B, 1, *spatial) in samples that annotate each class: (C,)."""
    if annotated is None:
        return mask.sum().expand(classes)
    return (mask.flatten(1).sum(1, keepdim=True) * annotated).sum(0)


def count_occurrences(numbers: torch.Tensor, limit: int) -> torch.Tensor:
    """Count how often each number below ``limit`` occurs: (limit,), int64.

    Equal to ``torch.bincount``, which makes the host wait for the GPU to find the largest number.

    >>> count_occurrences(torch.tensor([0, 2, 2]), 4)
    tensor([1, 0, 2, 0])

    Args:
        numbers: (N,), int64, from 0 to ``limit`` - 1.
    """
    ones = numbers.new_ones(1).expand_as(numbers)
    return numbers.new_zeros(limit).scatter_add_(0, numbers, ones)
