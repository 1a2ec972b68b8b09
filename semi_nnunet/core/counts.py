"""How many voxels a prediction gets right, of each class."""

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
) -> torch.Tensor:
    """True positives, false positives, false negatives and looked-at voxels of the batch.

    No one-hot tensor is made: the network's activations still fill the memory.

    Args:
        logits: (B, classes or regions, *spatial).
        target: nnU-Net's at the same resolution: (B, 1, *spatial) class numbers; regions as 0 or 1,
            with a last channel of what is ignored where there is an ignore label.
        exclusive: whether the classes exclude each other; regions are predicted above 1/2.
        ignore_label: voxels of it are not counted.
        annotated: bool (B, C), the classes or regions that each sample annotates; None: all. A
            sample is looked at for these alone: another class, where it is predicted, counts as
            background.

    Returns:
        (4, foreground classes or regions), int64.
    """
    looked_at, classes = annotated_voxels(target, not exclusive, ignore_label), logits.shape[1]
    if exclusive:
        predicted = most_probable(logits)
        if annotated is not None:
            counts = annotated.gather(1, predicted.flatten(1)).view_as(predicted)
            predicted = predicted * counts
        pairs = target[:, 0].long() * classes + predicted
        pairs = torch.where(looked_at[:, 0], pairs, classes**2)
        table = occurrences(pairs.flatten(), classes**2 + 1)[:-1].view(classes, -1)
        tp, voxels = table.diagonal(), voxels_of_classes(looked_at, classes, annotated)
        return torch.stack([tp, table.sum(0) - tp, table.sum(1) - tp, voxels])[:, 1:]
    seen = looked_at if annotated is None else looked_at & per_voxel(annotated, logits.ndim)
    said, known = (logits > 0) & seen, (target[:, :classes] > 0.5) & seen
    axes = (0, *range(2, logits.ndim))
    counted = [one.sum(axes) for one in (said & known, said & ~known, known & ~said)]
    return torch.stack([*counted, voxels_of_classes(looked_at, classes, annotated)])


def voxels_of_classes(
    mask: torch.Tensor, classes: int, annotated: torch.Tensor | None
) -> torch.Tensor:
    """How many voxels of a mask (B, 1, *spatial) are of samples that annotate each class, (C,)."""
    if annotated is None:
        return mask.sum().expand(classes)
    return (mask.flatten(1).sum(1, keepdim=True) * annotated).sum(0)


def occurrences(numbers: torch.Tensor, limit: int) -> torch.Tensor:
    """How often each number below ``limit`` occurs, (limit,), int64.

    As ``torch.bincount``, for which a GPU is waited, because it looks for the largest number.

    Args:
        numbers: (N,), int64, from 0 to ``limit`` - 1.
    """
    ones = numbers.new_ones(1).expand_as(numbers)
    return numbers.new_zeros(limit).scatter_add_(0, numbers, ones)
