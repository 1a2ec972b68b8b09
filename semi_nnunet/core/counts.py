"""How many voxels of each class a prediction gets right."""

from __future__ import annotations

import torch


def class_counts(labels: torch.Tensor, target: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """True positives, false positives and false negatives of the batch, on the mask's voxels.

    Args:
        labels: one-hot (B, C, *spatial), or regions.
        target: the same of the truth.
        mask: (B, 1, *spatial).

    Returns:
        (3, C), float32.
    """
    axes = (0, *range(2, labels.ndim))
    labels, target = labels * mask, target * mask
    both = (labels * target).sum(axes)
    return torch.stack([both, labels.sum(axes) - both, target.sum(axes) - both])
