"""From logits to pseudo labels: argmax, confidence, sharpening, thresholds.

``probs`` are (B, C, *spatial): of softmax classes (``exclusive``), the first of them background, or
of C independent sigmoid regions.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from semi_nnunet.core.components import label_components
from semi_nnunet.core.processes import all_reduce_sum


def to_probs(logits: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Return the softmax over classes, or a sigmoid for each region, in float32."""
    return logits.float().softmax(1) if exclusive else torch.sigmoid(logits.float())


def most_probable(values: torch.Tensor, dim: int = 1, keepdim: bool = False) -> torch.Tensor:
    """Return the index of the highest value, the first of equal ones; int64.

    Equal to ``argmax``, which takes up to 25 times as long on a CPU.
    """
    return values.max(dim, keepdim=keepdim).indices


def hard_pseudo_label(probs: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Return one-hot labels of the most probable class, or regions above 1/2, in float32.

    >>> hard_pseudo_label(torch.tensor([[0.2, 0.5, 0.3]]), exclusive=True)
    tensor([[0., 1., 0.]])
    """
    if not exclusive:
        return (probs > 0.5).float()
    onehot = torch.zeros(probs.shape, device=probs.device)
    return onehot.scatter_(1, most_probable(probs, keepdim=True), 1.0)


def is_foreground(probs: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Return bool (B, 1, *spatial), True for a class other than background, or any region."""
    if not exclusive:
        return (probs > 0.5).any(1, keepdim=True)
    return most_probable(probs, keepdim=True) > 0


def sharpen(probs: torch.Tensor, temperature: float, exclusive: bool) -> torch.Tensor:
    """Return p^(1/T), normalised over classes (MixMatch, eq. 7), or region and complement.

    >>> sharpen(torch.tensor([[0.75, 0.25]]), 0.5, exclusive=True)
    tensor([[0.9000, 0.1000]])
    """
    p = probs.float().clamp(1e-30, 1.0)
    if not exclusive:
        return torch.sigmoid((torch.log(p) - torch.log((1.0 - p).clamp_min(1e-30))) / temperature)
    return torch.softmax(torch.log(p) / temperature, 1)  # p^(1/T) itself may be 0 for all


def keep_largest_in_patches(target: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Keep only the largest component of each class or region in each patch.

    Removed voxels become background.
    """
    result = target.clone()
    for sample in result:
        for label in sample[1:] if exclusive else sample:
            array = label.cpu().numpy() > 0
            components = label_components(array)
            if components.max() > 1:
                largest = np.bincount(components.ravel())[1:].argmax() + 1
                label.mul_(torch.from_numpy(components == largest).to(label.device))
    if exclusive:
        result[:, 0] = 1.0 - result[:, 1:].sum(1)
    return result


def foreground_labels(probs: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Return bool (F, *spatial), the foreground classes or the regions of (C, *spatial)."""
    if not exclusive:
        return probs > 0.5
    predicted = most_probable(probs, 0)
    return torch.stack([predicted == label for label in range(1, len(probs))])


def confidence(probs: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Return the probability of each class where it is predicted, and 0 elsewhere.

    Of regions: the larger of p and 1 - p, everywhere.
    """
    if not exclusive:
        return torch.maximum(probs, 1.0 - probs)
    return probs * hard_pseudo_label(probs, exclusive)


class ClassThresholds(nn.Module):
    """A confidence threshold for each class, so that hard classes keep their pseudo labels.

    The mean confidence m_c of voxels predicted as class c is averaged over steps, and
    tau_c = tau m_c / max m (FreeMatch, Wang et al. 2023, arXiv:2205.07246, eq. 8, with FixMatch's
    constant tau instead of a learned one). A class that was never predicted has m_c = 1 / C.
    A voxel counts as outside a region only with confidence tau: with tau_c, every voxel in which a
    hard region is doubtful would become a label against it.

    >>> ClassThresholds(2, 0.9, class_wise=True).thresholds()
    tensor([0.9000, 0.9000])

    Args:
        classes: C, of softmax classes or regions.
        threshold: tau.
        class_wise: False: tau for every class (FixMatch).
        decay: of the moving average.
    """

    mean: torch.Tensor

    def __init__(self, classes: int, threshold: float, class_wise: bool, decay: float = 0.99):
        super().__init__()
        self.threshold, self.class_wise, self.decay = threshold, class_wise, decay
        self.register_buffer("mean", torch.full((classes,), 1.0 / classes))

    @torch.no_grad()
    def forward(self, probs: torch.Tensor, mask: torch.Tensor, exclusive: bool) -> torch.Tensor:
        """Return the voxels with confident pseudo labels: bool (B, 1, *spatial).

        A voxel counts only if all its regions are confident.

        Args:
            probs: (B, C, *spatial), with which m is updated first.
            mask: bool (B, 1, *spatial), the voxels to consider.
            exclusive: see above.
        """
        confidences = confidence(probs, exclusive)
        predicted = confidences > 0 if exclusive else probs > 0.5
        if self.class_wise:
            self._update(confidences, predicted * mask)
        thresholds = self.thresholds().view((1, -1) + (1,) * (probs.ndim - 2))
        if exclusive:
            return ((confidences >= thresholds) & predicted).any(1, keepdim=True) & mask
        limit = torch.where(predicted, thresholds, self.threshold)
        return (confidences >= limit).all(1, keepdim=True) & mask

    def thresholds(self) -> torch.Tensor:
        """Return tau_c, (C,)."""
        if not self.class_wise:
            return torch.full_like(self.mean, self.threshold)
        return self.threshold * self.mean / self.mean.max()

    def _update(self, confidences: torch.Tensor, predicted: torch.Tensor) -> None:
        axes = (0, *range(2, confidences.ndim))
        sums = torch.stack([predicted.sum(axes), (confidences * predicted).sum(axes)])
        voxels, total = all_reduce_sum(sums)
        mean = total / voxels.clamp_min(1.0)
        usable = (voxels > 0) & torch.isfinite(mean)
        self.mean.copy_(torch.where(usable, torch.lerp(mean, self.mean, self.decay), self.mean))
