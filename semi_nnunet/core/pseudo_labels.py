"""From logits to pseudo labels: argmax, confidence, sharpening, thresholds.

``probs`` are (B, C, *spatial): of softmax classes (``exclusive``), the first of them background, or
of C independent sigmoid regions.
"""

from __future__ import annotations

import numpy as np
import torch
from scipy import ndimage
from torch import nn

from semi_nnunet.core.processes import sum_over_processes


def to_probs(logits: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Softmax over the classes, or a sigmoid for each region; float32."""
    return logits.float().softmax(1) if exclusive else torch.sigmoid(logits.float())


def most_probable(values: torch.Tensor, dim: int = 1, keepdim: bool = False) -> torch.Tensor:
    """The class with the highest value, the first of equal ones; int64.

    That is ``argmax``, which takes up to 25 times as long on a CPU.
    """
    return values.max(dim, keepdim=keepdim).indices


def hard_pseudo_label(probs: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """One-hot of the most probable class (background is one), or regions above 1/2; float32."""
    if not exclusive:
        return (probs > 0.5).float()
    onehot = torch.zeros(probs.shape, device=probs.device)
    return onehot.scatter_(1, most_probable(probs, keepdim=True), 1.0)


def is_foreground(probs: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Bool (B, 1, *spatial): a class other than background, or any region."""
    if not exclusive:
        return (probs > 0.5).any(1, keepdim=True)
    return most_probable(probs, keepdim=True) > 0


def sharpen(probs: torch.Tensor, temperature: float, exclusive: bool) -> torch.Tensor:
    """p^(1/T) / sum of it over the classes (MixMatch, eq. 7); a region against its complement."""
    p = probs.float().clamp(1e-30, 1.0)
    if not exclusive:
        return torch.sigmoid((torch.log(p) - torch.log((1.0 - p).clamp_min(1e-30))) / temperature)
    return torch.softmax(torch.log(p) / temperature, 1)  # p^(1/T) itself may be 0 for all


def keep_largest_component(target: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """One-hot labels or regions with all but the largest component of each taken away.

    Components are those of each (patch, class), neighbours touching by faces, edges or corners;
    what is taken away becomes background.
    """
    kept = target.clone()
    for sample in kept:
        for label in sample[1:] if exclusive else sample:
            array = label.cpu().numpy() > 0
            components, count = ndimage.label(array, np.ones((3,) * array.ndim))
            if count > 1:
                largest = np.bincount(components.ravel())[1:].argmax() + 1
                label.mul_(torch.from_numpy(components == largest).to(label.device))
    if exclusive:
        kept[:, 0] = 1.0 - kept[:, 1:].sum(1)
    return kept


def foreground_labels(probs: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Bool (F, *spatial): the foreground classes, or the regions."""
    if not exclusive:
        return probs > 0.5
    predicted = most_probable(probs, 0)
    return torch.stack([predicted == label for label in range(1, len(probs))])


def confidence(probs: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """The probability of each class where it is predicted, elsewhere 0: (B, C, *spatial).

    Of regions: the larger of p and 1 - p, everywhere.
    """
    if not exclusive:
        return torch.maximum(probs, 1.0 - probs)
    return probs * hard_pseudo_label(probs, exclusive)


class ClassThresholds(nn.Module):
    """A confidence threshold for each class, so that hard classes are not silenced.

    The mean confidence m_c of the voxels predicted as class c is averaged over the steps, and
    tau_c = tau m_c / max m (FreeMatch, Wang et al. 2023, arXiv:2205.07246, eq. 8, with FixMatch's
    constant tau in place of a learned one). A class that was not predicted yet has m_c = 1 / C.
    That a voxel is of no region must be as sure as tau: with tau_c, every voxel in which a hard
    region is doubted would be a label against it.

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
        """Where the pseudo labels are to be trusted, bool (B, 1, *spatial); regions: all of them.

        Args:
            probs: (B, C, *spatial); they are averaged into m before.
            mask: bool (B, 1, *spatial), of the voxels to look at.
            exclusive: see above.
        """
        sure = confidence(probs, exclusive)
        predicted = sure > 0 if exclusive else probs > 0.5
        if self.class_wise:
            self._update(sure, predicted * mask)
        shape = (1, -1) + (1,) * (probs.ndim - 2)
        of_class = self.thresholds().view(shape)
        if exclusive:
            return ((sure >= of_class) & predicted).any(1, keepdim=True) & mask
        limit = torch.where(predicted, of_class, self.threshold)
        return (sure >= limit).all(1, keepdim=True) & mask

    def thresholds(self) -> torch.Tensor:
        """tau_c, (C,)."""
        if not self.class_wise:
            return torch.full_like(self.mean, self.threshold)
        return self.threshold * self.mean / self.mean.max()

    def _update(self, sure: torch.Tensor, predicted: torch.Tensor) -> None:
        axes = (0, *range(2, sure.ndim))
        sums = torch.stack([predicted.sum(axes), (sure * predicted).sum(axes)])
        voxels, total = sum_over_processes(sums)
        mean = total / voxels.clamp_min(1.0)
        usable = (voxels > 0) & torch.isfinite(mean)
        self.mean.copy_(torch.where(usable, torch.lerp(mean, self.mean, self.decay), self.mean))
