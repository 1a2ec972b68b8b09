"""How unsure one is of a whole image: numbers in [0, 1], higher is worse.

Means, never sums over the volume, so that a large image is not taken for an uncertain one. Labels
are bool (F, *spatial), one channel for each foreground class or region. An image in which nothing
is found has the worst score: it would teach nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch.nn import functional as F

from semi_nnunet.core.pseudo_labels import is_foreground
from semi_nnunet.core.uncertainty import entropy, max_entropy


def disagreement(first: torch.Tensor, second: torch.Tensor) -> float:
    """1 - mean Dice of two networks' labels, over the classes that one of them finds."""
    both = (first & second).flatten(1).sum(1).double()
    sizes = first.flatten(1).sum(1) + second.flatten(1).sum(1)
    found = sizes > 0
    return 1.0 - float((2 * both / sizes)[found].mean()) if found.any() else 1.0


def checkpoint_disagreement(labels: Sequence[torch.Tensor]) -> float:
    """1 - mean over earlier checkpoints of the mean IoU with the last one's labels.

    Reliability of ST++ (Yang et al. 2022, arXiv:2106.05095, sec. 3.3), without background, which
    would hide small organs; classes that neither finds are left out.
    """
    *earlier, last = labels
    return sum(1.0 - _mean_iou(labels, last) for labels in earlier) / len(earlier)


def _mean_iou(first: torch.Tensor, second: torch.Tensor) -> float:
    both = (first & second).flatten(1).sum(1).double()
    either = (first | second).flatten(1).sum(1)
    found = either > 0
    return float((both / either)[found].mean()) if found.any() else 0.0


def foreground_entropy(probs: torch.Tensor, exclusive: bool) -> float:
    """Mean entropy in and next to the predicted foreground, relative to the largest possible.

    Args:
        probs: (C, *spatial), see :mod:`semi_nnunet.core.pseudo_labels`.
        exclusive: see there.
    """
    found = is_foreground(probs[None], exclusive)[0, 0]
    if not found.any():
        return 1.0
    pool = F.max_pool2d if found.ndim == 2 else F.max_pool3d
    near = pool(found[None, None].float(), 3, stride=1, padding=1)[0, 0] > 0
    nats = entropy(probs[None], exclusive)[0, 0]
    return max(0.0, float(nats[near].mean())) / max_entropy(probs.shape[0], exclusive)


def voxel_change(rounds: Sequence[torch.Tensor]) -> float:
    """Mean over successive rounds of the voxels whose label changed, by the foreground of then.

    The score by which the winner of FLARE22 left images out; here a round counts at most 1.

    Args:
        rounds: the labels of two rounds or more, the newest last.
    """
    changes = [_changed(*pair) for pair in itertools.pairwise(rounds)]
    return sum(changes) / len(changes)


def _changed(before: torch.Tensor, after: torch.Tensor) -> float:
    foreground = int(after.any(0).sum())
    changed = int((before != after).any(0).sum())
    return min(1.0, changed / foreground) if foreground else 1.0
