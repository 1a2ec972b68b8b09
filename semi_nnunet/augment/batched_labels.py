"""What nnU-Net's transforms do to labels once their geometry is final, of a whole batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def replace_label(
    labels: torch.Tensor, value: int, by: int, channels: Sequence[int] | None
) -> torch.Tensor:
    """Replace a label in some channels of ``labels`` (B, C, *spatial), or in all (None).

    ``labels`` are changed, and returned.
    """
    parts = [labels] if channels is None else [labels[:, channel] for channel in channels]
    for part in parts:
        part.masked_fill_(part == value, by)
    return labels


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
    return [_at_scale(labels, scale) for scale in scales]


def _at_scale(labels: torch.Tensor, scale: Sequence[float]) -> torch.Tensor:
    if all(factor == 1 for factor in scale):
        return labels
    spatial = labels.shape[2:]
    shape = [round(edge * factor) for edge, factor in zip(spatial, scale, strict=True)]
    if any(edge % wanted for edge, wanted in zip(spatial, shape, strict=True)):
        return F.interpolate(labels.float(), shape, mode="nearest-exact").to(labels.dtype)
    every = [edge // wanted for edge, wanted in zip(spatial, shape, strict=True)]
    middle = (slice(step // 2, None, step) for step in every)  # what nearest-exact takes
    index = (slice(None), slice(None), *middle)
    return labels[index].contiguous()
