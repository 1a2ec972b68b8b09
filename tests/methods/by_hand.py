"""Slow versions of computations of several methods, voxel by voxel in double precision."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
import torch


def dice_ce_by_hand(
    logits: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    exclusive: bool,
    annotated: torch.Tensor | None = None,
) -> float:
    """Return cross-entropy minus the batch's soft Dice of foreground classes, on a mask.

    Args:
        annotated: bool (B, C) or (B, C, *spatial), the classes that the target annotates.
    """
    if annotated is not None:
        annotated = annotated.reshape(*annotated.shape, *[1] * (logits.ndim - annotated.ndim))
        annotated = annotated.expand(logits.shape).numpy()
        return partial_dice_ce_by_hand(logits, target, mask, exclusive, annotated)
    z, t = logits.detach().double().numpy(), target.double().numpy()
    keep = mask.numpy()[:, 0] > 0
    classes = z.shape[1]
    intersection, predicted, reference = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    entropy, count = 0.0, 0
    for sample, *voxel in np.argwhere(keep):
        index = (sample, slice(None), *voxel)
        logit, truth = z[index], t[index]
        if exclusive:
            p = np.exp(logit - logit.max())
            p /= p.sum()
            entropy -= float((truth * np.log(p)).sum())
        else:
            p = 1 / (1 + np.exp(-logit))
            losses = -(truth * np.log(p) + (1 - truth) * np.log(1 - p))
            entropy += float(losses.mean())
        count += 1
        intersection += p * truth
        predicted += p
        reference += truth
    first = 1 if exclusive else 0
    dice = (2 * intersection + 1e-5) / (predicted + reference + 1e-5)
    return entropy / max(count, 1) - float(dice[first:].mean())


def partial_dice_ce_by_hand(
    logits: torch.Tensor,
    target: torch.Tensor,
    mask: torch.Tensor,
    exclusive: bool,
    annotated: np.ndarray,
) -> float:
    """Return the same for some annotated classes: the others are background, or no region."""
    z, t = logits.detach().double().numpy(), target.double().numpy()
    classes = z.shape[1]
    intersection, predicted, reference = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    entropy, count = 0.0, 0
    for sample, *voxel in np.argwhere(mask.numpy()[:, 0] > 0):
        index = (sample, slice(None), *voxel)
        counts = annotated[index]
        if exclusive:
            p = np.exp(z[index] - z[index].max())
            p /= p.sum()
            p, truth = (
                np.array([v[c] if c else v[0] + v[~counts].sum() for c in range(classes)])
                for v in (p, t[index])
            )
            entropy -= sum(truth[c] * np.log(p[c]) for c in range(classes) if counts[c])
            count += 1
        else:
            p, truth = 1 / (1 + np.exp(-z[index])), t[index]
            losses = -(truth * np.log(p) + (1 - truth) * np.log(1 - p))
            entropy += float(losses[counts].sum())
            count += counts.sum()
        intersection += p * truth * counts
        predicted += p * counts
        reference += truth * counts
    dice = (2 * intersection + 1e-5) / (predicted + reference + 1e-5)
    first = 1 if exclusive else 0
    anywhere = annotated.any((0, *range(2, annotated.ndim)))
    dice = [dice[c] for c in range(first, classes) if anywhere[c]]
    return entropy / max(count, 1) - float(np.mean(dice))


def pasted_by_hand(around: torch.Tensor, inside: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """Paste a box of one patch into another, voxel by voxel; one box serves all patches."""
    out, boxes = around.clone(), box.expand(len(around), *box.shape[1:])
    for b, *voxel in np.argwhere(boxes[:, 0].numpy()):
        out[(b, slice(None), *voxel)] = inside[(b, slice(None), *voxel)]
    return out


def labels_by_hand(probs: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """Return the most probable class, or every region above 1/2."""
    if exclusive:
        return torch.zeros_like(probs).scatter_(1, probs.argmax(1, keepdim=True), 1)
    return (probs > 0.5).float()


def remember_boxes(monkeypatch: pytest.MonkeyPatch, method: ModuleType) -> list[torch.Tensor]:
    """Return a list to which every box that the method draws is appended."""
    boxes, draw = list[torch.Tensor](), method.sample_boxes
    remember = lambda *args: (boxes.append(draw(*args)), boxes[-1])[1]  # noqa: E731
    monkeypatch.setattr(method, "sample_boxes", remember)
    return boxes


def mixed_by_hand(x: torch.Tensor, box: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    """Apply CutMix, voxel by voxel."""
    out = x.clone()
    for b, *voxel in np.argwhere(box[:, 0].numpy()):
        index = (slice(None), *voxel)
        out[b][index] = x[partner[b]][index]
    return out
