"""Hidden blocks of images, for masked reconstruction (He et al. 2022, arXiv:2111.06377)."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def sample_hidden_blocks(batch: torch.Tensor, block: Sequence[int], ratio: float) -> torch.Tensor:
    """Sample which blocks of a regular grid are hidden, independently for each sample.

    >>> int(sample_hidden_blocks(torch.zeros(1, 1, 8, 8), (4, 4), 0.5).sum())
    32

    Args:
        batch: (B, C, *spatial), for batch, patch size and device.
        block: voxels of a block along each axis; the last block of an axis may be cut.
        ratio: share of hidden blocks, rounded to whole blocks, at least one.

    Returns:
        bool (B, 1, *spatial), True where hidden.
    """
    size = batch.shape[2:]
    grid = [-(-voxels // edge) for voxels, edge in zip(size, block, strict=True)]
    order = torch.rand(batch.shape[0], *grid, device=batch.device).flatten(1).argsort(1).argsort(1)
    number = max(1, round(ratio * order.shape[1]))
    hidden = (order < number).view(-1, 1, *grid)
    for axis, edge in enumerate(block):
        hidden = hidden.repeat_interleave(edge, 2 + axis).narrow(2 + axis, 0, size[axis])
    return hidden


def score_restoration(
    restored: torch.Tensor, image: torch.Tensor, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compute the error and the explained variance of restored voxels.

    Args:
        restored, image: (B, C, *spatial).
        hidden: bool (B, 1, *spatial), the voxels that count.

    Returns:
        The mean squared difference over hidden voxels and channels, and the explained share of
        these voxels' variance: 1 for a perfect restoration, 0 for predicting the mean.
    """
    image, weight = image.float(), hidden.to(torch.float32)
    values = (weight.sum() * image.shape[1]).clamp_min(1.0)
    error = ((restored.float() - image) ** 2 * weight).sum() / values
    mean = (image * weight).sum() / values
    variance = ((image - mean) ** 2 * weight).sum() / values
    return error, (1 - error / variance.clamp_min(1e-8)).detach()
