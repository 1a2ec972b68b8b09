"""Class weights from how often a class occurs, and from how hard it is to learn.

Frequent classes count less, so that small organs count. A class is difficult if its Dice falls more
than it rises, or is low. Both are of DHC (Wang & Li, MICCAI 2023, arXiv:2307.11960).
"""

from __future__ import annotations

import torch
from torch import nn

from semi_nnunet.core.counts import count_class_voxels
from semi_nnunet.core.partial_labels import merge_probs, per_voxel
from semi_nnunet.core.processes import all_reduce_sum

MIN_FREQUENCY = 1e-5  # lower bound on f_c, so that the weights of very rare classes stay finite


class FrequencyWeights(nn.Module):
    """Weights w_c proportional to 1 + ln(max f / f_c), with mean 1.

    The frequencies f are a moving average over steps. The logarithm of the inverse frequency is
    DHC's (Wang & Li, MICCAI 2023, arXiv:2307.11960, DistDW), there of pseudo labels. Differs: the
    1, without which the largest class, the background, would not count at all.

    >>> FrequencyWeights(3)()
    tensor([1., 1., 1.])

    Args:
        classes: C, of softmax classes or regions.
        decay: of the moving average, which starts with equal frequencies.
    """

    frequencies: torch.Tensor

    def __init__(self, classes: int, decay: float = 0.99):
        super().__init__()
        self.decay = decay
        self.register_buffer("frequencies", torch.full((classes,), 1.0 / classes))

    @torch.no_grad()
    def count(
        self,
        labels: torch.Tensor,
        mask: torch.Tensor,
        annotated: torch.Tensor | None = None,
    ) -> None:
        """Update the frequencies with a batch.

        Args:
            labels: one-hot or regions (B, C, *spatial).
            mask: (B, 1, *spatial), True for the voxels to count.
            annotated: bool (B, C), the classes or regions that each sample annotates; None: all.
                A class is counted only in samples that annotate it; voxels labelled background
                are counted as such, as in the loss.
        """
        axes = (0, *range(2, labels.ndim))
        if annotated is not None:
            labels = labels * per_voxel(annotated, labels.ndim)
        voxels = count_class_voxels(mask, labels.shape[1], annotated)
        sums = torch.stack([(labels * mask).sum(axes).float(), voxels.float()])
        counts, voxels = all_reduce_sum(sums)
        new = torch.lerp(counts / voxels.clamp_min(1), self.frequencies, self.decay)
        self.frequencies.copy_(torch.where(voxels > 0, new, self.frequencies))

    def forward(self) -> torch.Tensor:
        """Return the weights (C,)."""
        frequencies = self.frequencies.clamp_min(MIN_FREQUENCY)
        weights = 1.0 + torch.log(frequencies.max() / frequencies)
        return weights / weights.mean()


class DifficultyWeights(nn.Module):
    """Class weights from the Dice of successive steps.

    With d the Dice of a class and D = d_t - d_(t-1):
    learn <- EMA(max(D, 0) ln(d_t / d_(t-1))), unlearn <- EMA(min(D, 0) ln(d_t / d_(t-1))),
    w = C (unlearn / learn)^(1/5) EMA(1 - d), averaged over ``horizon`` steps.

    Differs from A&D, which leaves w unbounded (a ratio to the power of 1/5 reaches 40):
    ``normalised`` divides by the mean, so that the loss keeps its size. A class whose Dice is NaN,
    because neither labels nor prediction contain it, keeps its averages: its absence does not
    change its difficulty.

    >>> DifficultyWeights(2)(torch.tensor([0.5, 0.5]))
    tensor([1., 1.])

    Args:
        classes: C.
        horizon: A of the paper, in steps.
        normalised: to mean 1.
    """

    previous: torch.Tensor
    learn: torch.Tensor
    unlearn: torch.Tensor
    low: torch.Tensor

    def __init__(self, classes: int, horizon: int = 50, normalised: bool = True):
        super().__init__()
        self.horizon, self.normalised = horizon, normalised
        self.register_buffer("previous", torch.full((classes,), 1e-8))
        for name in ("learn", "unlearn"):
            self.register_buffer(name, torch.zeros(classes))
        self.register_buffer("low", torch.ones(classes))

    @torch.no_grad()
    def forward(self, dice: torch.Tensor) -> torch.Tensor:
        """Update the averages with a step's Dice (C,), in [0, 1] or NaN; return weights (C,)."""
        present = ~torch.isnan(dice)
        dice = torch.where(present, dice.float().clamp_min(1e-8), self.previous)
        change, ratio = dice - self.previous, torch.log(dice / self.previous)
        for average, value in (
            (self.learn, change.clamp_min(0) * ratio),
            (self.unlearn, change.clamp_max(0) * ratio),
            (self.low, 1.0 - dice),
        ):
            average.lerp_(torch.where(present, value, average), 1.0 / self.horizon)
        self.previous.copy_(dice)
        weights = ((self.unlearn + 1e-8) / (self.learn + 1e-8)) ** 0.2 * self.low
        if self.normalised:
            return weights / weights.mean().clamp_min(1e-8)
        return weights * len(weights)


def hard_dice(
    labels: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    absent: float | None = None,
    annotated: torch.Tensor | None = None,
    exclusive: bool = True,
) -> torch.Tensor:
    """Return the Dice (C,) of each class over the batch of all processes, on a mask.

    Args:
        labels: predicted one-hot labels or regions (B, C, *spatial).
        target: true labels of the same form.
        mask: (B, 1, *spatial).
        absent: Dice of a class that neither contains (A&D's code: 0.5); None: NaN.
        annotated, exclusive: see :func:`~semi_nnunet.core.partial_labels.merge_probs`; predicted
            classes that a sample does not annotate are not counted.
    """
    axes = (0, *range(2, labels.ndim))
    labels, target = merge_probs(labels, annotated, exclusive) * mask, target * mask
    sums = torch.stack([(labels * target).sum(axes), labels.sum(axes) + target.sum(axes)])
    intersection, sizes = all_reduce_sum(sums)
    empty = torch.nan if absent is None else absent
    return torch.where(sizes > 0, 2 * intersection / sizes.clamp_min(1), empty)
