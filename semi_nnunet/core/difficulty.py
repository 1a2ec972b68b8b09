"""Weights of classes that are hard to learn (DHC, Wang & Li, MICCAI 2023, arXiv:2307.11960).

A class is difficult if its Dice falls more than it rises, or is low.
"""

from __future__ import annotations

import torch
from torch import nn

from semi_nnunet.core.partial_labels import merge_probs
from semi_nnunet.core.processes import all_reduce_sum


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
