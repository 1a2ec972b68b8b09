"""Supervised losses besides nnU-Net's own: Dice with cross-entropy or focal loss, class weights.

Same conventions as nnU-Net's losses: ``target`` is a label map (B, 1, *spatial) for softmax
classes, or one channel per region, with the ignore mask as an additional last channel, for sigmoid
regions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from semi_nnunet.core.partial_labels import merge_logits, merge_probs, per_voxel
from semi_nnunet.core.processes import all_reduce_mean, all_reduce_sum
from semi_nnunet.util.errors import UserError


class DiceAndVoxelLoss(nn.Module):
    """-(weighted mean soft Dice) + cross-entropy (gamma 0) or focal loss.

    Focal loss: Lin et al. 2017, arXiv:1708.02002, eq. 4. With gamma 0 and no class weights this is
    nnU-Net's Dice + CE; a test compares the two. As in nnU-Net, the cross-entropy of regions is a
    mean over regions, but a sum over them if there is an ignore label.

    In a sample with partial labels (:mod:`semi_nnunet.core.partial_labels`), classes that are not
    annotated are merged into the background and have no Dice; such regions have no loss. The Dice
    is the mean over the classes that the sample, with batch_dice any sample, annotates.

    >>> loss = DiceAndVoxelLoss(regions=False)
    >>> logits, target = torch.tensor([[[9.0, -9.0], [-9.0, 9.0]]]), torch.tensor([[[0, 1]]])
    >>> round(float(loss(logits, target)), 3)
    -1.0

    Args:
        regions: sigmoid over overlapping regions instead of softmax over classes.
        ignore_label: label of voxels that do not count; None: all count. For regions any value
            means that the target's last channel is the ignore mask.
        batch_dice: Dice over the batch as one volume, as in the nnU-Net plan.
        focal_gamma: exponent of the focal loss; 0 is plain (binary) cross-entropy.
        class_weights: one weight per class (background included) or region, normalised to mean 1;
            or a function that returns the current weights, such as
            :class:`~semi_nnunet.core.class_weights.FrequencyWeights`. A weight of 0 excludes
            the class from the loss.
        smooth: added to numerator and denominator of the Dice.

    Raises:
        UserError: class weights are negative or all 0.
    """

    def __init__(
        self,
        regions: bool,
        ignore_label: int | None = None,
        batch_dice: bool = False,
        focal_gamma: float = 0.0,
        class_weights: Sequence[float] | Callable[[], torch.Tensor] | None = None,
        smooth: float = 1e-5,
    ):
        super().__init__()
        self.regions, self.ignore_label, self.batch_dice = regions, ignore_label, batch_dice
        self.focal_gamma, self.smooth = focal_gamma, smooth
        self._changing = class_weights if callable(class_weights) else None
        self._constant: torch.Tensor | None
        constant = None if callable(class_weights) else normalise_class_weights(class_weights)
        self.register_buffer("_constant", constant)

    def forward(
        self, logits: torch.Tensor, target: torch.Tensor, annotated: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Return the loss, a scalar in float32.

        Args:
            logits: (B, C, *spatial).
            target: nnU-Net's, see above.
            annotated: bool (B, C), the classes or regions that each sample annotates; None: all.
        """
        classes = logits.shape[1]
        onehot, mask = onehot_and_mask(target, classes, self.regions, self.ignore_label)
        return self.masked(logits, onehot, mask, annotated=annotated)

    def masked(
        self,
        logits: torch.Tensor,
        target: torch.Tensor,
        mask: torch.Tensor,
        class_weights: torch.Tensor | None = None,
        annotated: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the loss against one-hot or soft labels on the voxels of a mask.

        Args:
            logits: (B, C, *spatial).
            target: one-hot or soft labels, same shape.
            mask: (B, 1, *spatial), bool or 0 / 1.
            class_weights: (C,) w, instead of those of the constructor. The cross-entropy is
                PyTorch's weighted one, the Dice the mean over classes of w x Dice, not normalised.
            annotated: bool (B, C) or (B, C, *spatial), the classes or regions that the target
                annotates; None: all.
        """
        logits, target, mask = logits.float(), target.float(), mask.float()
        weights = self.class_weights() if class_weights is None else class_weights
        scale = 1.0 if class_weights is None else class_weights[self._first :].mean()
        if annotated is not None:
            annotated = per_voxel(annotated, logits.ndim)
            target = merge_probs(target, annotated, exclusive=not self.regions)
            if self.regions:
                mask = mask * annotated
            else:
                logits = merge_logits(logits, annotated)
        voxels = self._voxel_loss(logits, target, mask, weights)
        return voxels - scale * self._dice(logits, target, mask, weights, annotated)

    def masked_at_scales(
        self,
        outputs: torch.Tensor | Sequence[torch.Tensor],
        scale_weights: Sequence[float],
        target: torch.Tensor,
        mask: torch.Tensor,
        annotated: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Return the weighted sum of :meth:`masked` over the outputs of deep supervision.

        Args:
            outputs: logits, or a list of logits of decreasing resolution.
            scale_weights: of each output of a list.
            target, mask, annotated: at full resolution, see :meth:`masked`.
        """
        if isinstance(outputs, torch.Tensor):
            return self.masked(outputs, target, mask, annotated=annotated)
        losses = []
        for logits in outputs:
            spatial = logits.shape[2:]
            pooled = None if annotated is None else pool_annotated(annotated, spatial)
            losses.append(
                self.masked(logits, *pool_target(target, mask, spatial), annotated=pooled)
            )
        weighted = [w * loss for w, loss in zip(scale_weights, losses, strict=True)]
        return sum(weighted[1:], weighted[0])

    @property
    def _first(self) -> int:
        """The first channel with a Dice: background has none."""
        return 0 if self.regions else 1

    def class_weights(self) -> torch.Tensor | None:
        """Return the current class weights (C,), or None for equal weights."""
        return self._constant if self._changing is None else self._changing()

    def _focus(self, probs: torch.Tensor) -> torch.Tensor:
        """Return (1 - p)^gamma; the derivative of a root at 0 is infinite, hence the floor."""
        return (1.0 - probs).clamp_min(1e-8) ** self.focal_gamma

    def _voxel_loss(
        self,
        logits: torch.Tensor,
        onehot: torch.Tensor,
        mask: torch.Tensor,
        weights: torch.Tensor | None,
    ) -> torch.Tensor:
        def weighted(values: torch.Tensor) -> torch.Tensor:
            return values if weights is None else values * per_voxel(weights[None], logits.ndim)

        if self.regions:
            losses = F.binary_cross_entropy_with_logits(logits, onehot, reduction="none")
            if self.focal_gamma:
                losses = self._focus(torch.exp(-losses)) * losses
            losses = weighted(losses) * mask
            summed_over_regions = self.ignore_label is not None
            counted = mask.amax(1).sum() if summed_over_regions else mask.sum()
            regions = 1 if summed_over_regions or mask.shape[1] > 1 else logits.shape[1]
            voxels = all_reduce_mean(counted)
            return losses.sum() / (voxels * regions).clamp_min(1e-8)
        focused = log_probs = torch.log_softmax(logits, 1)
        if self.focal_gamma:
            focused = self._focus(log_probs.exp()) * log_probs
        losses = -weighted(focused * onehot).sum(1, keepdim=True)
        voxel_weights = weighted(onehot).sum(1, keepdim=True) * mask
        total = all_reduce_mean(voxel_weights.sum())
        return (losses * mask).sum() / total.clamp_min(1e-8)

    def _dice(
        self,
        logits: torch.Tensor,
        onehot: torch.Tensor,
        mask: torch.Tensor,
        weights: torch.Tensor | None,
        annotated: torch.Tensor | None,
    ) -> torch.Tensor:
        probs = torch.sigmoid(logits) if self.regions else torch.softmax(logits, 1)
        if weights is None:
            weights = torch.ones(probs.shape[1], device=probs.device)
        probs, labels = probs[:, self._first :], onehot[:, self._first :] * mask
        axes = tuple(range(2, logits.ndim))
        sums = [(probs * labels).sum(axes), (probs * mask).sum(axes), labels.sum(axes)]
        if annotated is not None:  # whether each sample annotates each class
            sums.append(annotated[:, self._first :].flatten(2).any(2).to(probs))
        if self.batch_dice:
            sums = list(all_reduce_sum(torch.stack([values.sum(0) for values in sums])))
        intersection, predicted, reference, *samples = sums
        total = (predicted + reference + self.smooth).clamp_min(1e-8)
        dice = (2 * intersection + self.smooth) / total
        weights = weights[self._first :]
        weight_sum = weights.sum()
        if samples:  # the weights of annotated classes are scaled to the sum of all weights
            present = weights * (samples[0] > 0)
            all_classes = weights.expand_as(present).sum(-1, keepdim=True)
            weights = present * (all_classes / present.sum(-1, keepdim=True).clamp_min(1e-8))
        return (dice * weights).sum(-1).mean() / weight_sum.clamp_min(1e-8)


def annotated_voxels(target: torch.Tensor, regions: bool, ignore_label: int | None) -> torch.Tensor:
    """Return bool (B, 1, *spatial), False where nnU-Net's target is ignored."""
    if ignore_label is None:
        return torch.ones_like(target[:, :1], dtype=torch.bool)
    if regions:
        return target[:, -1:] == 0
    return target[:, :1].long() != ignore_label


def onehot_and_mask(
    target: torch.Tensor, classes: int, regions: bool, ignore_label: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return nnU-Net's target as float (B, C, *spatial), and the mask of annotated voxels.

    >>> onehot, mask = onehot_and_mask(torch.tensor([[[0, 1, 2]]]), 2, False, ignore_label=2)
    >>> onehot.tolist(), mask.tolist()
    ([[[1.0, 0.0, 1.0], [0.0, 1.0, 0.0]]], [[[True, True, False]]])

    Args:
        target: label map or regions, see above.
        classes: C, the number of classes or regions.
        regions: whether the target has regions.
        ignore_label: see :class:`DiceAndVoxelLoss`.
    """
    mask = annotated_voxels(target, regions, ignore_label)
    if regions:
        return target[:, :classes].float(), mask
    labels = target[:, :1].long()
    if ignore_label is not None:
        labels = torch.where(mask, labels, 0)
    shape = (labels.shape[0], classes, *labels.shape[2:])
    return torch.zeros(shape, device=labels.device).scatter_(1, labels, 1.0), mask


def pool_target(
    target: torch.Tensor, mask: torch.Tensor, spatial: Sequence[int]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Average a soft target over the voxels of its mask, for an output of lower resolution.

    >>> target, mask = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[True, True]]]])
    >>> pool_target(target, mask, (1, 1))
    (tensor([[[[0.5000]]]]), tensor([[[[True]]]]))

    Args:
        target: (B, C, *spatial).
        mask: bool (B, 1, *spatial).
        spatial: of the output.

    Returns:
        The averaged target, and bool (B, 1, *spatial), True where most voxels are in the mask.
    """
    weights = _pool(mask.float(), spatial)
    mean = _pool(target * mask, spatial) / weights.clamp_min(1e-6)
    return mean, weights > 0.5


def pool_annotated(annotated: torch.Tensor, spatial: Sequence[int]) -> torch.Tensor:
    """Return which classes all voxels of a cell annotate, for an output of lower resolution.

    Args:
        annotated: bool (B, C), (B, C, 1, ...) or (B, C, *spatial).
        spatial: of the output.
    """
    if annotated[0, 0].numel() == 1:  # of whole patches
        return annotated
    return _pool(annotated.float(), spatial) > 0.999


def _pool(values: torch.Tensor, spatial: Sequence[int]) -> torch.Tensor:
    pool: Any = F.adaptive_avg_pool2d if len(spatial) == 2 else F.adaptive_avg_pool3d
    pooled: torch.Tensor = pool(values, tuple(spatial))
    return pooled


def normalise_class_weights(weights: Sequence[float] | None) -> torch.Tensor | None:
    """Divide the weights by their mean.

    Raises:
        UserError: a weight is negative, or all are 0.
    """
    if weights is None:
        return None
    if not weights or min(weights) < 0 or max(weights) == 0:
        raise UserError(
            f"class_weights must be 0 or more and not all 0, got {tuple(weights)}",
            fix="set plans['semi']['class_weights']",
        )
    values = torch.tensor(weights, dtype=torch.float32)
    return values / values.mean()
