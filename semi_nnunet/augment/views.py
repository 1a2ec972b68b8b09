"""A view of a batch: appearance changes that leave nnU-Net's conventions intact."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from semi_nnunet.augment.intensity import appearance_changes


class AppearanceView:
    """Change the appearance of the image channels, nothing else.

    Args:
        strength: factor on the ranges of the changes; 0 changes nothing.
        probability: of each change, for each sample; 0 changes nothing.
        zero_outside: for each image channel, whether its voxels outside the body are to stay zero
            (nnU-Net's ``use_mask_for_norm``). Further channels are those of a cascade's previous
            stage and stay as they are.
    """

    def __init__(self, strength: float, probability: float, zero_outside: Sequence[bool]):
        self.changes = appearance_changes(strength, probability)
        self.zero_outside = tuple(zero_outside)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """The view of ``x`` (B, C, *spatial), same shape."""
        if not self.changes:
            return x
        image, rest = x[:, : len(self.zero_outside)], x[:, len(self.zero_outside) :]
        changed = image
        for change in self.changes:
            changed = change(changed)
        if any(self.zero_outside):
            outside = (image == 0).all(1, keepdim=True)
            channels = zip(changed.split(1, dim=1), self.zero_outside, strict=True)
            kept = [one.masked_fill(outside, 0.0) if zero else one for one, zero in channels]
            changed = torch.cat(kept, dim=1)
        return torch.cat([changed, rest], 1) if rest.shape[1] else changed
