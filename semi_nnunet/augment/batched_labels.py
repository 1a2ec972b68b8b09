"""What nnU-Net's transforms do to labels once their geometry is final, of a whole batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def replace_label(
    labels: torch.Tensor, value: int, by: int, channels: Sequence[int] | None
) -> torch.Tensor:
    """Replace a label in some channels of ``labels`` (B, C, *spatial), or in all (None)."""
    if channels is None:
        return labels.masked_fill(labels == value, by)
    changed = labels.clone()
    for channel in channels:
        changed[:, channel].masked_fill_(labels[:, channel] == value, by)
    return changed


def fill_outside(
    x: torch.Tensor, outside: torch.Tensor, channels: Sequence[int], value: float
) -> torch.Tensor:
    """Set channels of ``x`` (B, C, *spatial) to a value where ``outside`` (B, *spatial) is True.

    ``x`` is changed, and returned.
    """
    for channel in channels:
        x[:, channel].masked_fill_(outside, value)
    return x


def to_regions(labels: torch.Tensor, regions: Sequence[Sequence[int]]) -> torch.Tensor:
    """For each region, whether a voxel has one of its labels.

    Args:
        labels: (B, *spatial).
        regions: the labels of each.

    Returns:
        bool (B, regions, *spatial).
    """
    shape = (labels.shape[0], len(regions), *labels.shape[1:])
    inside = torch.zeros(shape, dtype=torch.bool, device=labels.device)
    for number, region in enumerate(regions):
        for label in region:
            inside[:, number] |= labels == label
    return inside


def at_scales(labels: torch.Tensor, scales: Sequence[Sequence[float]]) -> list[torch.Tensor]:
    """``labels`` (B, C, *spatial) at every scale of deep supervision, by the nearest voxel."""
    levels, values = [], labels.float()
    for scale in scales:
        if all(factor == 1 for factor in scale):
            levels.append(labels)
            continue
        shape = [round(edge * factor) for edge, factor in zip(labels.shape[2:], scale, strict=True)]
        levels.append(F.interpolate(values, shape, mode="nearest-exact").to(labels.dtype))
    return levels
