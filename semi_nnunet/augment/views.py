"""A view of a batch: appearance changes that leave nnU-Net's conventions intact."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from semi_nnunet.augment.intensity import make_appearance_changes


class AppearanceView:
    """Appearance changes of image channels only.

    >>> x = torch.ones(2, 1, 4, 4)
    >>> torch.equal(AppearanceView(0.0, 0.5, [False])(x), x)
    True

    Args:
        strength: factor on the ranges of the changes; 0 changes nothing.
        probability: of each change, for each sample; 0 changes nothing.
        zero_outside: for each image channel, whether voxels outside the body stay zero (nnU-Net's
            ``use_mask_for_norm``). Further channels are the previous stage's predictions in a
            cascade and are not changed.
    """

    def __init__(self, strength: float, probability: float, zero_outside: Sequence[bool]):
        self.changes = make_appearance_changes(strength, probability)
        self.zero_outside = tuple(zero_outside)

    def split(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Split ``x`` into the image's channels and those of a cascade's first stage."""
        count = len(self.zero_outside)
        return x[:, :count], x[:, count:]

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        """Return the view of ``x`` (B, C, *spatial), same shape."""
        if not self.changes:
            return x
        image, rest = self.split(x)
        changed = image
        for change in self.changes:
            changed = change(changed)
        if any(self.zero_outside):
            zeroed = [number for number, is_zeroed in enumerate(self.zero_outside) if is_zeroed]
            outside = (image[:, zeroed] == 0).all(1, keepdim=True)
            channels = zip(changed.split(1, dim=1), self.zero_outside, strict=True)
            masked = [
                channel.masked_fill(outside, 0.0) if is_zeroed else channel
                for channel, is_zeroed in channels
            ]
            changed = torch.cat(masked, dim=1)
        return torch.cat([changed, rest], 1) if rest.shape[1] else changed
