"""Uncertainty of the predicted labels of a whole image: numbers in [0, 1], higher is worse.

All scores are means, so that a large image does not count as uncertain. Labels are bool
(F, *spatial), one channel for each foreground class or region. An image without any predicted
foreground gets the worst score, because it would teach nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from semi_nnunet.core.pseudo_labels import is_foreground
from semi_nnunet.core.uncertainty import entropy, max_entropy


def network_disagreement(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return 1 - mean Dice of the labels of two networks, over the classes that either predicts.

    >>> labels = torch.tensor([[True, True, False, False]])
    >>> network_disagreement(labels, labels.roll(1, 1))
    0.5
    """
    intersection = (first & second).flatten(1).sum(1).double()
    sizes = first.flatten(1).sum(1) + second.flatten(1).sum(1)
    present = sizes > 0
    return 1.0 - float((2 * intersection / sizes)[present].mean()) if present.any() else 1.0


def checkpoint_disagreement(labels: Sequence[torch.Tensor]) -> float:
    """Return 1 - mean IoU of the labels of earlier checkpoints with those of the last one.

    Reliability of ST++ (Yang et al. 2022, arXiv:2106.05095, sec. 3.3), without background, which
    would hide small organs, and without classes that neither checkpoint predicts.
    """
    *earlier, last = labels
    return sum(1.0 - _mean_iou(labels, last) for labels in earlier) / len(earlier)


def _mean_iou(first: torch.Tensor, second: torch.Tensor) -> float:
    intersection = (first & second).flatten(1).sum(1).double()
    union = (first | second).flatten(1).sum(1)
    present = union > 0
    return float((intersection / union)[present].mean()) if present.any() else 0.0


def foreground_entropy(probs: torch.Tensor, exclusive: bool) -> float:
    """Return the mean entropy in and next to the predicted foreground, relative to its maximum.

    Args:
        probs: (C, *spatial), see :mod:`semi_nnunet.core.pseudo_labels`.
        exclusive: softmax classes; otherwise sigmoid regions.
    """
    foreground = is_foreground(probs[None], exclusive)[0, 0]
    if not foreground.any():
        return 1.0
    pool = F.max_pool2d if foreground.ndim == 2 else F.max_pool3d
    near = pool(foreground[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
    nats = entropy(probs[None], exclusive)[0, 0]
    return max(0.0, float(nats[near].mean())) / max_entropy(probs.shape[0], exclusive)


def voxel_change(rounds: Sequence[torch.Tensor]) -> float:
    """Return the mean share of voxels whose label changed from one round to the next.

    The share is relative to the foreground of the later round, and at most 1. By this score the
    winner of FLARE22 left images out.

    Args:
        rounds: labels of two or more rounds, the newest last.
    """
    changes = [_changed_share(*pair) for pair in itertools.pairwise(rounds)]
    return sum(changes) / len(changes)


def _changed_share(previous: torch.Tensor, current: torch.Tensor) -> float:
    foreground = int(current.any(0).sum())
    changed = int((previous != current).any(0).sum())
    return min(1.0, changed / foreground) if foreground else 1.0
