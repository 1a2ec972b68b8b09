"""Mix the samples of a batch by boxes: CutMix (Yun et al. 2019; for segmentation French et al. 2020, arXiv:1906.01916)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class BoxMix:
    """Paste a box of another sample of the batch into each sample.

    Applied to images, probabilities and masks alike, so that they stay voxel-aligned.

    Args:
        box: bool (B, 1, *spatial), True inside the box, where the partner's voxels are taken.
        partner: (B,) index of the sample to take them from.
    """

    box: torch.Tensor
    partner: torch.Tensor

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Mix ``x`` (B, C, *spatial)."""
        return torch.where(self.box, x[self.partner], x)


def sample_boxes(
    batch_size: int, spatial: Sequence[int], edge: float, device: torch.device
) -> torch.Tensor:
    """One random box per sample, each edge ``edge`` times the patch's: bool (B, 1, *spatial), True inside."""
    box = torch.ones((batch_size, 1, *spatial), dtype=torch.bool, device=device)
    for axis, size in enumerate(spatial):
        length = max(1, round(size * edge))
        start = (torch.rand(batch_size, device=device) * (size - length + 1)).long()
        position = torch.arange(size, device=device)
        inside = (position >= start[:, None]) & (position < start[:, None] + length)
        box &= inside.view(batch_size, 1, *[size if a == axis else 1 for a in range(len(spatial))])
    return box


def sample_box_mix(like: torch.Tensor, edge: float, probability: float) -> BoxMix:
    """A random :class:`BoxMix` for tensors of the batch and patch size of ``like`` (B, C, *spatial).

    The partner is the sample before; each sample is mixed with ``probability``. A batch of one stays as it is.
    """
    batch_size, spatial, device = like.shape[0], like.shape[2:], like.device
    box = sample_boxes(batch_size, spatial, edge, device)
    chosen = torch.rand(batch_size, device=device) < probability
    return BoxMix(
        box & chosen.view(-1, *[1] * (like.ndim - 1)),
        torch.arange(batch_size, device=device).roll(1),
    )
