"""Labels of cases in which not every class was annotated.

Voxels of a class that was not annotated are labelled background. In such a case "background"
means background or any of these classes, and its probability is the sum of theirs (marginal loss,
Shi et al. 2021, arXiv:2007.03868, eq. 4-5). Regions are independent: those without annotation
are left out.

``annotated`` is bool, (B, C) for whole samples, or (B, C, *spatial) where samples are mixed; of
softmax classes the background, channel 0, is always True. None: every sample annotates all.
"""

from __future__ import annotations

import torch

MERGED_LOGIT = -1e30  # of a class merged into the background; finite, so that 0 times it is 0


def per_voxel(annotated: torch.Tensor, dimensions: int) -> torch.Tensor:
    """Append axes of length 1 to (B, C, ...) up to ``dimensions`` axes."""
    return annotated.reshape(*annotated.shape, *[1] * (dimensions - annotated.ndim))


def merge_logits(logits: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
    """Merge classes that are not annotated into the background of logits (B, C, *spatial).

    The softmax of the result adds their probability to the background's and gives them 0. If all
    classes are annotated, the logits stay equal bit for bit.
    """
    annotated = per_voxel(annotated, logits.ndim)
    foreground = torch.cat([torch.zeros_like(annotated[:, :1]), annotated[:, 1:]], 1)
    background = torch.logsumexp(logits.masked_fill(foreground, -torch.inf), 1, keepdim=True)
    return torch.cat([background, logits.masked_fill(~annotated, MERGED_LOGIT)[:, 1:]], 1)


def merge_probs(
    probs: torch.Tensor, annotated: torch.Tensor | None, exclusive: bool
) -> torch.Tensor:
    """Merge classes that are not annotated into the background of probabilities or labels.

    >>> merge_probs(torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([[True, True, False]]), True)
    tensor([[0.7500, 0.2500, 0.0000]])

    Args:
        probs: probabilities, one-hot labels or regions (B, C, *spatial).
        annotated: see above.
        exclusive: softmax classes; otherwise regions, which become 0 and are not merged.
    """
    if annotated is None:
        return probs
    annotated = per_voxel(annotated, probs.ndim)
    annotated_probs = probs * annotated
    if not exclusive:
        return annotated_probs
    background = annotated_probs[:, :1] + (probs * ~annotated).sum(1, keepdim=True)
    return torch.cat([background, annotated_probs[:, 1:]], 1)


def find_certain_voxels(
    target: torch.Tensor, mask: torch.Tensor, annotated: torch.Tensor | None, exclusive: bool
) -> torch.Tensor:
    """Return the voxels of a mask whose class is certain.

    Args:
        target: one-hot labels or regions (B, C, *spatial).
        mask: bool (B, 1, *spatial).
        annotated: see above.
        exclusive: softmax classes; otherwise regions.

    Returns:
        bool: for classes (B, 1, *spatial), without the background of samples that do not annotate
        all; for regions (B, C, *spatial), only annotated ones.
    """
    if annotated is None:
        return mask
    annotated = per_voxel(annotated, target.ndim)
    if not exclusive:
        return mask & annotated
    return mask & ~((target[:, :1] > 0) & ~annotated.all(1, keepdim=True))
