"""Distances between a prediction and its target on the voxels of a mask."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from semi_nnunet.core.processes import all_reduce_mean, all_reduce_sum


def masked_mean(values: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """Return the mean of values over channels and the voxels of a mask.

    In a DDP training, the mean of all processes' results is that of all their voxels.

    >>> masked_mean(torch.tensor([[[1.0, 3.0, 5.0]]]), torch.tensor([[[True, True, False]]]))
    tensor(2.)

    Args:
        values: (B, C, *spatial).
        mask: (B, 1, *spatial); None: all voxels. An empty mask gives 0, with zero gradient.
    """
    if mask is None:
        return values.mean()
    weight = mask.to(values.dtype)
    voxels = all_reduce_mean(weight.sum())
    return (values * weight).sum() / (voxels * values.shape[1]).clamp_min(1.0)


def probability_mse(
    prediction: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None = None,
) -> torch.Tensor:
    """Return the mean squared difference of probabilities over voxels and classes, in float32.

    Args:
        prediction: probabilities of the student (B, C, *spatial).
        target: probabilities of the teacher, same shape; receives no gradient.
        mask: bool (B, 1, *spatial), True where the voxel counts; None: everywhere.
    """
    return masked_mean((prediction.float() - target.detach().float()) ** 2, mask)


def probability_dice_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None = None,
    exclusive: bool = True,
) -> torch.Tensor:
    """Return the mean over classes of 1 - Dice of probabilities, weighted by certainty.

    With squares in the denominator (Milletari et al. 2016, arXiv:1606.04797, sec. 3), 1 - Dice is
    ``sum (p - q)^2 / (sum p^2 + sum q^2)`` over the voxels of all processes, the squared difference
    relative to the size of the class: 0 for equal probabilities, also for uncertain ones. One
    voxel is added to the size.

    The weight of a class is ``sum q^2 / sum q``, the mean of the target's probabilities q weighted
    by themselves: near 1 for a class that the teacher knows, near 0 for a class it has not
    learned yet. Without it, Dice freezes unlearned classes, because a probability of 2 % where the
    teacher predicts 1 % is as far off as 100 % instead of 50 %: a small organ was never learned
    (docs/results/journal.md).

    Args:
        prediction, target, mask: as in :func:`probability_mse`.
        exclusive: softmax classes, without the background; otherwise sigmoid regions.
    """
    prediction, target = prediction.float(), target.detach().float()
    inside = torch.ones_like(prediction[:, :1]) if mask is None else mask.to(prediction.dtype)
    voxels = (0, *range(2, prediction.ndim))
    difference = ((prediction - target) ** 2 * inside).sum(voxels)
    squares = (target**2 * inside).sum(voxels)
    size = (prediction**2 * inside).sum(voxels) + squares
    sums = torch.stack([difference, squares, size, (target * inside).sum(voxels)])
    difference, squares, size, total = all_reduce_sum(sums)
    certainty = squares / total.clamp_min(1e-6)
    return (certainty * difference / (size + 1.0))[1 if exclusive else 0 :].mean()


def soft_label_divergence(
    logits: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None,
    exclusive: bool,
) -> torch.Tensor:
    """Return the mean Kullback-Leibler divergence of a prediction from soft labels, in float32.

    Args:
        logits: of the student (B, C, *spatial).
        target: probabilities (B, C, *spatial); receive no gradient.
        mask: bool (B, 1, *spatial), True where the voxel counts; None: everywhere.
        exclusive: softmax classes; otherwise sigmoid regions, which are averaged, too.
    """
    logits, target = logits.float(), target.detach().float()
    if exclusive:
        terms = torch.xlogy(target, target) - target * torch.log_softmax(logits, 1)
        return masked_mean(terms.sum(1, keepdim=True), mask)
    entropy = -torch.xlogy(target, target) - torch.xlogy(1.0 - target, 1.0 - target)
    cross_entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return masked_mean(cross_entropy - entropy, mask)
