"""How much the unlabelled terms count: as their ramp-up says, and as the network can be trusted."""

from __future__ import annotations

from typing import Any

import numpy as np

from semi_nnunet.core.ramps import ramp


def trust_of_classes(
    tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, voxels: np.ndarray | int
) -> np.ndarray:
    """Dice above that of calling every voxel the class: (Dice - c) / (1 - c), c = 2 p / (1 + p).

    Args:
        tp, fp, fn: (classes,) voxels.
        voxels: looked at, of which a class has the fraction p.

    Returns:
        (classes,) in [0, 1]; NaN for a class that no voxel shows.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        dice = 2 * tp / (2 * tp + fp + fn)
        p = (tp + fn) / voxels
        chance = 2 * p / (1 + p)
        trust = np.clip((dice - chance) / (1 - chance), 0, 1)
    return np.where(tp + fn > 0, trust, np.nan)


def trust_in_unknown(known: np.ndarray, augmented: np.ndarray) -> np.ndarray:
    """Trust in unknown images, where no labelled one is left to validate on: augmented^2 / known.

    With fold "all" the validation cases are trained on. A network that loses a part of what it
    knows of them once they are augmented is taken to lose that part again on images that it was not
    trained on. Measured against such images in docs/results.md, "Polyps".

    Args:
        known: (classes,) :func:`trust_of_classes` of patches that are trained on, as they are.
        augmented: (classes,) that of patches of the same cases as they are augmented for training,
            in the last quarter of the steps before.

    Returns:
        (classes,) at most ``known``; NaN for a class that no voxel shows in one of them.
    """
    kept = np.minimum(augmented, known)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known == 0, kept, kept**2 / known)


class UnlabelledWeight:
    """The factor on every unlabelled term: ramp-up x (trust in the deployed network)^2.

    Consistency with a network that knows little teaches that little: it was seen to cost three
    points on polyps (two with the trust itself as the factor), and a small organ altogether. Trust
    is that of the validation, with fold "all" :func:`trust_in_unknown`. Until
    ``unlabelled_start_steps`` the class that is known least decides, then their mean, so that a
    class that is never learned does not silence the others. Where ``follow_trust`` is off, as in
    the papers, trust is 1, and the ramp begins at ``unlabelled_start_steps``; 0 of these is that.

    Args:
        settings: of the trainer (``unlabelled_weight``, ``unlabelled_start_steps``, ``ramp_up``,
            ``ramp_up_steps``, ``follow_trust``).
    """

    def __init__(self, settings: Any):
        self.settings = settings
        self.follows = settings.follow_trust and settings.unlabelled_start_steps > 0
        self.trust = 0.0 if self.follows else 1.0

    def at(self, step: int) -> float:
        """The factor in optimizer step ``step``."""
        settings = self.settings
        start = 0 if self.follows else settings.unlabelled_start_steps
        if step < start:
            return 0.0
        growth = ramp(settings.ramp_up, step - start, settings.ramp_up_steps)
        return settings.unlabelled_weight * growth * self.trust**2

    def trust_after(self, of_classes: np.ndarray, next_step: int) -> float:
        """Trust from ``next_step`` on, after a validation; a class without voxels is not known."""
        if not self.follows:
            return 1.0
        if next_step < self.settings.unlabelled_start_steps:
            return float(np.nan_to_num(of_classes).min())
        seen = of_classes[~np.isnan(of_classes)]
        return float(seen.mean()) if len(seen) else 0.0
