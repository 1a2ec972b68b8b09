"""Supervised losses beside nnU-Net's own: Dice with cross-entropy or focal loss, and class weights.

Same conventions as nnU-Net's losses: ``target`` is a label map (B, 1, *spatial) for softmax classes, or one
channel per region, with the ignore mask as an additional last channel, for sigmoid regions.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F


class DiceAndVoxelLoss(nn.Module):
    """-(weighted mean soft Dice) + cross-entropy (gamma 0) or focal loss (Lin et al. 2017, arXiv:1708.02002, eq. 4).

    Args:
        regions: sigmoid over overlapping regions instead of softmax over classes.
        ignore_label: voxels of this label do not count; None: all count. For regions any value means that the
            target's last channel is the ignore mask.
        batch_dice: Dice over the batch as one volume, as in the nnU-Net plan.
        focal_gamma: exponent of the focal loss; 0 is plain (binary) cross-entropy.
        class_weights: one weight per class (background included) or region; they are normalised to mean 1.
        smooth: added to numerator and denominator of the Dice.

    With gamma 0 and no class weights this is nnU-Net's Dice + CE, a test compares the two.
    """

    def __init__(
        self,
        regions: bool,
        ignore_label: int | None = None,
        batch_dice: bool = False,
        focal_gamma: float = 0.0,
        class_weights: Sequence[float] | None = None,
        smooth: float = 1e-5,
    ):
        super().__init__()
        self.regions, self.ignore_label, self.batch_dice = regions, ignore_label, batch_dice
        self.focal_gamma, self.smooth = focal_gamma, smooth
        weights = (
            None if class_weights is None else torch.tensor(class_weights, dtype=torch.float32)
        )
        self.register_buffer("class_weights", None if weights is None else weights / weights.mean())

    def forward(self, logits: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """Loss of ``logits`` (B, C, *spatial), a scalar in float32."""
        logits = logits.float()
        onehot, mask = self._onehot_and_mask(logits, target)
        return self._voxel_loss(logits, onehot, mask) - self._dice(logits, onehot, mask)

    def _onehot_and_mask(
        self, logits: torch.Tensor, target: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if self.regions:
            if self.ignore_label is None:
                return target.float(), torch.ones_like(target[:, :1], dtype=torch.float32)
            return target[:, :-1].float(), 1.0 - target[:, -1:].float()
        labels = target[:, :1].long()
        mask = (
            torch.ones_like(labels, dtype=torch.bool)
            if self.ignore_label is None
            else labels != self.ignore_label
        )
        labels = torch.where(mask, labels, 0)
        return torch.zeros_like(logits).scatter_(1, labels, 1.0), mask.float()

    def _weights(self, channels: int, like: torch.Tensor) -> torch.Tensor:
        weights: torch.Tensor | None = self.class_weights
        return (
            torch.ones(channels, device=like.device) if weights is None else weights.to(like.device)
        )

    def _voxel_loss(
        self, logits: torch.Tensor, onehot: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        shape = (1, -1) + (1,) * (logits.ndim - 2)
        weights = self._weights(logits.shape[1], logits).view(shape)
        if self.regions:
            losses = F.binary_cross_entropy_with_logits(logits, onehot, reduction="none")
            focus = (1.0 - torch.exp(-losses)) ** self.focal_gamma if self.focal_gamma else 1.0
            return (focus * losses * weights * mask).sum() / (
                mask.sum() * logits.shape[1]
            ).clamp_min(1e-8)
        log_probs = torch.log_softmax(logits, 1)
        focus = (1.0 - log_probs.exp()) ** self.focal_gamma if self.focal_gamma else 1.0
        losses = -(focus * log_probs * onehot * weights).sum(1, keepdim=True)
        voxel_weights = (onehot * weights).sum(1, keepdim=True) * mask
        return (losses * mask).sum() / voxel_weights.sum().clamp_min(1e-8)

    def _dice(self, logits: torch.Tensor, onehot: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        probs = torch.sigmoid(logits) if self.regions else torch.softmax(logits, 1)
        first = 0 if self.regions else 1  # background has no Dice
        probs, onehot = probs[:, first:], onehot[:, first:]
        axes = tuple(range(2, logits.ndim))
        intersection = (probs * onehot * mask).sum(axes)
        predicted, reference = (probs * mask).sum(axes), (onehot * mask).sum(axes)
        if self.batch_dice:
            intersection, predicted, reference = (
                intersection.sum(0),
                predicted.sum(0),
                reference.sum(0),
            )
        dice = (2 * intersection + self.smooth) / (predicted + reference + self.smooth).clamp_min(
            1e-8
        )
        weights = self._weights(logits.shape[1], logits)[first:]
        return (dice * weights).sum(-1).mean() / weights.sum()
