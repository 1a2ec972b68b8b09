"""How many voxels a prediction gets right, of each class."""

from __future__ import annotations

import torch


def count_classes(
    logits: torch.Tensor, target: torch.Tensor, exclusive: bool, ignore_label: int | None = None
) -> torch.Tensor:
    """True positives, false positives, false negatives and looked-at voxels of the batch.

    No one-hot tensor is made: the network's activations still fill the memory.

    Args:
        logits: (B, classes or regions, *spatial).
        target: nnU-Net's at the same resolution: (B, 1, *spatial) class numbers; regions as 0 or 1,
            with a last channel of what is ignored where there is an ignore label.
        exclusive: whether the classes exclude each other; regions are predicted above 1/2.
        ignore_label: voxels of it are not counted.

    Returns:
        (4, foreground classes or regions), int64.
    """
    if exclusive:
        labels = target[:, 0].long()
        classes = logits.shape[1]
        pairs = labels * classes + logits.argmax(1)
        if ignore_label is not None:
            pairs = torch.where(labels == ignore_label, classes**2, pairs)
        table = torch.bincount(pairs.flatten(), minlength=classes**2 + 1)[:-1].view(classes, -1)
        tp, voxels = table.diagonal(), table.sum()
        counts = [tp, table.sum(0) - tp, table.sum(1) - tp, voxels.expand(classes)]
        return torch.stack(counts)[:, 1:]
    regions = logits.shape[1]
    looked_at = torch.ones_like(target[:, :1], dtype=torch.bool)
    if ignore_label is not None:
        looked_at = target[:, regions:] == 0
    said, known = (logits > 0) & looked_at, (target[:, :regions] > 0.5) & looked_at
    axes = (0, *range(2, logits.ndim))
    counts = [(said & known), (said & ~known), (known & ~said)]
    summed = [one.sum(axes) for one in counts]
    return torch.stack([*summed, looked_at.sum().expand(regions)])
