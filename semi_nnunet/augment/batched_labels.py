"""nnU-Net's label transforms after the spatial ones, applied to a whole batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.nn import functional as F


def replace_label(
    labels: torch.Tensor, value: int, by: int, channels: Sequence[int] | None
) -> torch.Tensor:
    """Replace a label, in place, in some channels of (B, C, *spatial), or in all (None)."""
    views = [labels] if channels is None else [labels[:, channel] for channel in channels]
    for view in views:
        view.masked_fill_(view == value, by)
    return labels


def fill_outside(
    x: torch.Tensor, outside: torch.Tensor, channels: Sequence[int], value: float
) -> torch.Tensor:
    """Set channels of ``x`` (B, C, *spatial), in place, where ``outside`` (B, *spatial) is True."""
    for channel in channels:
        x[:, channel].masked_fill_(outside, value)
    return x


def to_regions(labels: torch.Tensor, regions: Sequence[Sequence[int]]) -> torch.Tensor:
    """Convert labels into regions.

    >>> to_regions(torch.tensor([[0, 1, 2]]), [(1, 2), (2,)])
    tensor([[[False,  True,  True],
             [False, False,  True]]])

    Args:
        labels: (B, *spatial).
        regions: the labels of each region.

    Returns:
        bool (B, regions, *spatial).
    """
    shape = (labels.shape[0], len(regions), *labels.shape[1:])
    inside = torch.zeros(shape, dtype=torch.bool, device=labels.device)
    for number, region in enumerate(regions):
        for label in region:
            inside[:, number] |= labels == label
    return inside


def downsample_labels(
    labels: torch.Tensor, scales: Sequence[Sequence[float]]
) -> list[torch.Tensor]:
    """Downsample (B, C, *spatial) to every scale of deep supervision, by the nearest voxel."""
    return [_downsample(labels, scale) for scale in scales]


def _downsample(labels: torch.Tensor, scale: Sequence[float]) -> torch.Tensor:
    if all(factor == 1 for factor in scale):
        return labels
    spatial = labels.shape[2:]
    shape = [round(edge * factor) for edge, factor in zip(spatial, scale, strict=True)]
    if any(edge % small for edge, small in zip(spatial, shape, strict=True)):
        return F.interpolate(labels.float(), shape, mode="nearest-exact").to(labels.dtype)
    steps = [edge // small for edge, small in zip(spatial, shape, strict=True)]
    middle = (slice(step // 2, None, step) for step in steps)  # as nearest-exact
    index = (slice(None), slice(None), *middle)
    return labels[index].contiguous()
