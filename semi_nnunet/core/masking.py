"""Hiding blocks of images, for masked reconstruction (He et al. 2022, arXiv:2111.06377)."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from semi_nnunet.core.consistency import masked_mean


def hidden_blocks(like: torch.Tensor, block: Sequence[int], ratio: float) -> torch.Tensor:
    """Choose which blocks of a regular grid are hidden, other ones for each sample.

    Args:
        like: (B, C, *spatial), for batch, patch size and device.
        block: voxels of a block along each axis; the last one of an axis may be cut.
        ratio: of the blocks that are hidden, rounded to whole blocks, at least one.

    Returns:
        bool (B, 1, *spatial), True where hidden.
    """
    size = like.shape[2:]
    grid = [-(-voxels // edge) for voxels, edge in zip(size, block, strict=True)]
    order = torch.rand(like.shape[0], *grid, device=like.device).flatten(1).argsort(1).argsort(1)
    number = max(1, round(ratio * order.shape[1]))
    hidden = (order < number).view(-1, 1, *grid)
    for axis, edge in enumerate(block):
        hidden = hidden.repeat_interleave(edge, 2 + axis).narrow(2 + axis, 0, size[axis])
    return hidden


def restoration(
    restored: torch.Tensor, image: torch.Tensor, hidden: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """How well hidden voxels were restored.

    Args:
        restored, image: (B, C, *spatial).
        hidden: bool (B, 1, *spatial), the voxels that count.

    Returns:
        The squared difference, averaged over hidden voxels and channels, and the share of these
        voxels' variance that it leaves explained: 1 where all is restored, 0 for saying the mean.
    """
    image = image.float()
    error = masked_mean((restored.float() - image) ** 2, hidden)
    mean = masked_mean(image, hidden)
    variance = masked_mean((image - mean) ** 2, hidden)
    return error, (1 - error / variance.clamp_min(1e-8)).detach()
