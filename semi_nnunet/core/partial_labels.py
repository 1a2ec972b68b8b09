"""Labels of cases in which not every class was annotated: what they say, and what they leave open.

Where a class was not annotated, its voxels are labelled background. So "background" there means
background or any of these classes, and its probability is the sum of theirs (marginal loss, Shi et
al. 2021, arXiv:2007.03868, eq. 4-5). Regions are questions of their own: one that was not annotated
is left out.

``annotated`` is bool, (B, C) for whole samples, or (B, C, *spatial) where samples are mixed; of
softmax classes the background, channel 0, is always True. None: every sample annotates all.
"""

from __future__ import annotations

import torch

NEVER = -1e30  # logit of a class that is merged into another; finite, so that 0 times it is 0


def per_voxel(annotated: torch.Tensor, dimensions: int) -> torch.Tensor:
    """``annotated`` as (B, C, *spatial), where ``spatial`` may be ones; ``dimensions`` in all."""
    return annotated.reshape(*annotated.shape, *[1] * (dimensions - annotated.ndim))


def merged_logits(logits: torch.Tensor, annotated: torch.Tensor) -> torch.Tensor:
    """Logits (B, C, *spatial) of softmax classes, with what is not annotated in the background.

    Their softmax has the probability of those classes added to the background's, and 0 for them.
    Where all is annotated, they are the given ones, bit for bit.
    """
    annotated = per_voxel(annotated, logits.ndim)
    foreground = torch.cat([torch.zeros_like(annotated[:, :1]), annotated[:, 1:]], 1)
    background = torch.logsumexp(logits.masked_fill(foreground, -torch.inf), 1, keepdim=True)
    return torch.cat([background, logits.masked_fill(~annotated, NEVER)[:, 1:]], 1)


def merged_probs(
    probs: torch.Tensor, annotated: torch.Tensor | None, exclusive: bool
) -> torch.Tensor:
    """Probabilities or one-hot labels (B, C, *spatial), without classes that are not annotated.

    Args:
        probs: of softmax classes or regions.
        annotated: see above.
        exclusive: softmax classes, whose probability goes to the background; else regions, which
            become 0.
    """
    if annotated is None:
        return probs
    annotated = per_voxel(annotated, probs.ndim)
    kept = probs * annotated
    if not exclusive:
        return kept
    background = kept[:, :1] + (probs * ~annotated).sum(1, keepdim=True)
    return torch.cat([background, kept[:, 1:]], 1)


def known_voxels(
    target: torch.Tensor, mask: torch.Tensor, annotated: torch.Tensor | None, exclusive: bool
) -> torch.Tensor:
    """Where a label says for certain which class a voxel is.

    Args:
        target: one-hot labels or regions (B, C, *spatial).
        mask: bool (B, 1, *spatial), where a voxel counts.
        annotated: see above.
        exclusive: softmax classes; else regions.

    Returns:
        The mask without the background of samples that do not annotate all, (B, 1, *spatial); of
        regions without those that are not annotated, (B, C, *spatial).
    """
    if annotated is None:
        return mask
    annotated = per_voxel(annotated, target.ndim)
    if not exclusive:
        return mask & annotated
    return mask & ~((target[:, :1] > 0) & ~annotated.all(1, keepdim=True))
