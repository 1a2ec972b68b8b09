"""How far a prediction is from its target, over the voxels of a mask."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from semi_nnunet.core.processes import Summing, mean_of_processes


def masked_mean(
    values: torch.Tensor, mask: torch.Tensor | None, sum_over_ranks: Summing = None
) -> torch.Tensor:
    """Mean of ``values`` (B, C, *spatial) over channels and the voxels of a (B, 1, *spatial) mask.

    An empty mask gives 0, with a zero gradient; None stands for a mask that is True everywhere.
    With ``sum_over_ranks``, the mean of all processes' results is that of all their voxels.
    """
    if mask is None:
        return values.mean()
    weight = mask.to(values.dtype)
    voxels = mean_of_processes(weight.sum(), sum_over_ranks)
    return (values * weight).sum() / (voxels * values.shape[1]).clamp_min(1.0)


def probability_mse(
    prediction: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None = None,
    sum_over_ranks: Summing = None,
) -> torch.Tensor:
    """Squared difference of probabilities, averaged over voxels and classes, in float32.

    Args:
        prediction: probabilities of the student (B, C, *spatial).
        target: probabilities of the teacher, same shape; takes no gradient.
        mask: bool (B, 1, *spatial), True where the voxel counts; None: everywhere.
        sum_over_ranks: as in :func:`masked_mean`.
    """
    return masked_mean((prediction.float() - target.detach().float()) ** 2, mask, sum_over_ranks)


def probability_dice_loss(
    prediction: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None = None,
    exclusive: bool = True,
    sum_over_ranks: Summing = None,
) -> torch.Tensor:
    """1 - Dice of probabilities, each class weighed by how sure the target is of it, mean of them.

    0 where prediction and target are equal, also if they are uncertain: the denominator has squares
    (Milletari et al. 2016, arXiv:1606.04797, sec. 3), so that 1 - Dice is
    ``sum (p - q)^2 / (sum p^2 + sum q^2)`` over the voxels of the batch: the squared difference
    relative to the size of the class. Here one voxel is added to that size.

    The weight is ``sum q^2 / sum q``, the mean of the target's probabilities q weighed by
    themselves: near 1 for a class that the teacher knows, near 0 for one it has not learned yet. A
    Dice alone holds such a class where it is, because to it 2 % of probability where the teacher
    says 1 % is as far off as 100 % for 50 %: a small organ was never learned
    (docs/results/journal.md).

    Args:
        prediction, target, mask: as of :func:`probability_mse`.
        exclusive: softmax classes, of which the background does not count; else sigmoid regions.
        sum_over_ranks: adds up a tensor over the processes of a DDP training, whose batch is that
            of all of them; None: there is one.
    """
    prediction, target = prediction.float(), target.detach().float()
    inside = torch.ones_like(prediction[:, :1]) if mask is None else mask.to(prediction.dtype)
    voxels = (0, *range(2, prediction.ndim))
    difference = ((prediction - target) ** 2 * inside).sum(voxels)
    squares = (target**2 * inside).sum(voxels)
    size = (prediction**2 * inside).sum(voxels) + squares
    sums = torch.stack([difference, squares, size, (target * inside).sum(voxels)])
    if sum_over_ranks is not None:
        sums = sum_over_ranks(sums)
    difference, squares, size, total = sums
    sureness = squares / total.clamp_min(1e-6)
    return (sureness * difference / (size + 1.0))[1 if exclusive else 0 :].mean()


def soft_label_divergence(
    logits: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor | None,
    exclusive: bool,
    sum_over_ranks: Summing = None,
) -> torch.Tensor:
    """Kullback-Leibler divergence of a prediction from soft labels, mean over voxels, in float32.

    Args:
        logits: of the student (B, C, *spatial).
        target: probabilities (B, C, *spatial), which take no gradient.
        mask: bool (B, 1, *spatial), True where the voxel counts; None: everywhere.
        exclusive: softmax classes; else sigmoid regions, over which it is averaged, too.
        sum_over_ranks: as in :func:`masked_mean`.
    """
    logits, target = logits.float(), target.detach().float()
    if exclusive:
        each = torch.xlogy(target, target) - target * torch.log_softmax(logits, 1)
        return masked_mean(each.sum(1, keepdim=True), mask, sum_over_ranks)
    entropy = -torch.xlogy(target, target) - torch.xlogy(1.0 - target, 1.0 - target)
    crossed = F.binary_cross_entropy_with_logits(logits, target, reduction="none")
    return masked_mean(crossed - entropy, mask, sum_over_ranks)
