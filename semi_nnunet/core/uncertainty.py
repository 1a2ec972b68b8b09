"""Uncertainty of a prediction, voxel by voxel (higher is worse)."""

from __future__ import annotations

import math

import torch


def entropy(probs: torch.Tensor, exclusive: bool, eps: float = 1e-6) -> torch.Tensor:
    """Return the entropy of each voxel's distribution, in nats: (B, 1, *spatial), float32.

    Args:
        probs: (B, C, *spatial), of softmax classes (``exclusive``), or of C independent sigmoid
            regions, whose binary entropies are averaged.
        exclusive: whether the classes exclude each other.
    """
    p = probs.float()
    if exclusive:
        return -(p * torch.log(p + eps)).sum(1, keepdim=True)
    q = 1.0 - p
    return -(p * torch.log(p + eps) + q * torch.log(q + eps)).mean(1, keepdim=True)


def max_entropy(channels: int, exclusive: bool) -> float:
    """Return the largest :func:`entropy`: ln C for exclusive classes, ln 2 for regions.

    >>> round(max_entropy(4, exclusive=True), 3)
    1.386
    """
    return math.log(channels) if exclusive else math.log(2.0)
