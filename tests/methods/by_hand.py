"""Slow versions of what several methods compute, voxel by voxel in double precision."""

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
    """Cross-entropy minus the batch's soft Dice of foreground classes, on the mask's voxels.

    ``annotated``, bool (B, C) or (B, C, *spatial), says which classes the target tells.
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
        where = (sample, slice(None), *voxel)
        if exclusive:
            p = np.exp(z[where] - z[where].max())
            p /= p.sum()
            entropy -= float((t[where] * np.log(p)).sum())
        else:
            p = 1 / (1 + np.exp(-z[where]))
            losses = -(t[where] * np.log(p) + (1 - t[where]) * np.log(1 - p))
            entropy += float(losses.mean())
        count += 1
        intersection += p * t[where]
        predicted += p
        reference += t[where]
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
    """The same where only some classes are annotated: the others are background, or no region."""
    z, t = logits.detach().double().numpy(), target.double().numpy()
    classes = z.shape[1]
    intersection, predicted, reference = np.zeros(classes), np.zeros(classes), np.zeros(classes)
    entropy, count = 0.0, 0
    for sample, *voxel in np.argwhere(mask.numpy()[:, 0] > 0):
        where = (sample, slice(None), *voxel)
        told = annotated[where]
        if exclusive:
            p = np.exp(z[where] - z[where].max())
            p /= p.sum()
            p, truth = (
                np.array([one[c] if c else one[0] + one[~told].sum() for c in range(classes)])
                for one in (p, t[where])
            )
            entropy -= sum(truth[c] * np.log(p[c]) for c in range(classes) if told[c])
            count += 1
        else:
            p, truth = 1 / (1 + np.exp(-z[where])), t[where]
            losses = -(truth * np.log(p) + (1 - truth) * np.log(1 - p))
            entropy += float(losses[told].sum())
            count += told.sum()
        intersection += p * truth * told
        predicted += p * told
        reference += truth * told
    dice = (2 * intersection + 1e-5) / (predicted + reference + 1e-5)
    first = 1 if exclusive else 0
    anywhere = annotated.any((0, *range(2, annotated.ndim)))
    dice = [dice[c] for c in range(first, classes) if anywhere[c]]
    return entropy / max(count, 1) - float(np.mean(dice))


def pasted_by_hand(around: torch.Tensor, inside: torch.Tensor, box: torch.Tensor) -> torch.Tensor:
    """A box of one patch in another, voxel by voxel; a single box is that of all patches."""
    out, boxes = around.clone(), box.expand(len(around), *box.shape[1:])
    for b, *voxel in np.argwhere(boxes[:, 0].numpy()):
        out[(b, slice(None), *voxel)] = inside[(b, slice(None), *voxel)]
    return out


def labels_by_hand(probs: torch.Tensor, exclusive: bool) -> torch.Tensor:
    """The most probable class, or every region that is more probable than not."""
    if exclusive:
        return torch.zeros_like(probs).scatter_(1, probs.argmax(1, keepdim=True), 1)
    return (probs > 0.5).float()


def remember_boxes(monkeypatch: pytest.MonkeyPatch, method: ModuleType) -> list[torch.Tensor]:
    """The boxes that a method will draw, in order."""
    boxes, draw = list[torch.Tensor](), method.sample_boxes
    remember = lambda *args: (boxes.append(draw(*args)), boxes[-1])[1]  # noqa: E731
    monkeypatch.setattr(method, "sample_boxes", remember)
    return boxes


def mixed_by_hand(x: torch.Tensor, box: torch.Tensor, partner: torch.Tensor) -> torch.Tensor:
    """CutMix, voxel by voxel."""
    out = x.clone()
    for b, *voxel in np.argwhere(box[:, 0].numpy()):
        where = (slice(None), *voxel)
        out[b][where] = x[partner[b]][where]
    return out
