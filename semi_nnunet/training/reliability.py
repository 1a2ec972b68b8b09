"""The weight of unlabelled terms: their ramp-up times the squared reliability of the network.

The history's column ``trust`` and the checkpoint's key ``trust`` keep the word of version 0.2.0 for
the reliability.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from semi_nnunet.core.counts import count_classes
from semi_nnunet.core.ramps import ramp
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.training.distributed import Ranks

COUNTS = ("tp", "fp", "fn")
LAST_QUARTER = 4  # of an epoch's steps, whose network is nearly the validated one


def compute_class_reliability(
    tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, voxels: np.ndarray | int
) -> np.ndarray:
    """Compute (Dice - c) / (1 - c), where c is the Dice of calling every voxel the class.

    c is 2 p / (1 + p) for a class that has the fraction p of the voxels.

    >>> tp, fp, fn = np.array([40, 50]), np.array([0, 50]), np.array([0, 0])
    >>> compute_class_reliability(tp, fp, fn, 100)  # perfect; every voxel called the class
    array([1., 0.])

    Args:
        voxels: number of evaluated voxels, for all classes or for each.

    Returns:
        (classes,) in [0, 1]; NaN for a class without voxels.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        dice = 2 * tp / (2 * tp + fp + fn)
        p = (tp + fn) / voxels
        chance = 2 * p / (1 + p)
        reliability = np.clip((dice - chance) / (1 - chance), 0, 1)
    return np.where(tp + fn > 0, reliability, np.nan)


def estimate_unseen_reliability(trained: np.ndarray, augmented: np.ndarray) -> np.ndarray:
    """Estimate the reliability on unseen images without validation cases: augmented^2 / trained.

    Fold "all" trains on its validation cases. A network that loses a share of its reliability once
    these cases are augmented is assumed to lose that share again on images that it was not trained
    on. Measured against such images; see the documentation's page on Kvasir-SEG.

    >>> estimate_unseen_reliability(np.array([0.8]), np.array([0.4]))
    array([0.2])

    Args:
        trained: (classes,) reliability on training patches without augmentation.
        augmented: (classes,) reliability on patches of the same cases as augmented for training,
            in the last quarter of the epoch's steps.

    Returns:
        (classes,) at most ``trained``; NaN for a class without voxels in one of them.
    """
    limited = np.minimum(augmented, trained)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(trained == 0, limited, limited**2 / trained)


class UnlabelledWeight:
    """The factor on every unlabelled term: ramp-up x (reliability of the deployed network)^2.

    Consistency with an unreliable network teaches its errors: it cost three Dice points on polyps
    (two with the reliability itself as the factor), and a small organ altogether. The reliability
    is that of the validation; with fold "all" :func:`estimate_unseen_reliability`. Until
    ``unlabelled_start_steps`` the worst class decides, then the mean, so that a class that is never
    learned does not silence the others. Without ``follow_reliability``, or with
    ``unlabelled_start_steps`` 0, the reliability is 1 as in the papers, and the ramp begins at
    ``unlabelled_start_steps``.

    Args:
        settings: ``unlabelled_weight``, ``unlabelled_start_steps``, ``ramp_up``, ``ramp_up_steps``
            and ``follow_reliability``.
    """

    def __init__(self, settings: SemiSettings):
        self.settings = settings
        self.follows_reliability = (
            settings.follow_reliability and settings.unlabelled_start_steps > 0
        )
        self.reliability = 0.0 if self.follows_reliability else 1.0

    def at(self, step: int) -> float:
        """Return the factor in optimizer step ``step``."""
        settings = self.settings
        start = 0 if self.follows_reliability else settings.unlabelled_start_steps
        if step < start:
            return 0.0
        growth = ramp(settings.ramp_up, step - start, settings.ramp_up_steps)
        return settings.unlabelled_weight * growth * self.reliability**2

    def combine_classes(self, class_reliability: np.ndarray, next_step: int) -> float:
        """Return the reliability from ``next_step`` on.

        Args:
            class_reliability: (classes,); NaN, of a class without voxels, counts as 0 at first.
        """
        if not self.follows_reliability:
            return 1.0
        if next_step < self.settings.unlabelled_start_steps:
            return float(np.nan_to_num(class_reliability).min())
        present = class_reliability[~np.isnan(class_reliability)]
        return float(present.mean()) if len(present) else 0.0


@dataclass(eq=False)
class ReliabilityMeter:
    """Measures the reliability of the deployed network at the end of every epoch.

    Args:
        weight: weight whose reliability is set.
        trains_on_validated: whether validation cases are trained on (fold "all"), so that the
            student's results on augmented labelled patches are needed, too.
        ranks: processes whose voxels are counted together.
    """

    weight: UnlabelledWeight
    trains_on_validated: bool
    ranks: Ranks
    say: Callable[[str], None]
    labelled_counts: list[torch.Tensor] = field(default_factory=list, init=False)  # by step

    def count_labelled(
        self,
        logits: torch.Tensor,
        target: torch.Tensor,
        exclusive: bool,
        ignore_label: int | None,
        annotated: torch.Tensor | None = None,
        mask: torch.Tensor | None = None,
    ) -> None:
        """Count the student's correct voxels in augmented labelled patches, if needed.

        Args:
            logits: (B, classes or regions, *spatial).
            target: nnU-Net's target at the same resolution.
            exclusive: whether classes exclude each other.
            ignore_label: label of voxels that do not count.
            annotated: bool (B, classes or regions), classes that count in each patch; None for all.
            mask: bool (B, 1, *spatial), voxels that count; None for all.
        """
        if self.trains_on_validated and self.weight.follows_reliability:
            counts = count_classes(
                logits.detach(), target, exclusive, ignore_label, annotated, mask
            )
            self.labelled_counts.append(counts)

    def state(self) -> list[torch.Tensor]:
        """Return the counts since the last validation, for a checkpoint within an epoch."""
        return [counts.cpu() for counts in self.labelled_counts]

    def restore(self, state: Sequence[torch.Tensor]) -> None:
        """Restore the counts that :meth:`state` returned."""
        self.labelled_counts = list(state)

    def after_validation(self, outputs: Sequence[Mapping[str, Any]], next_step: int) -> float:
        """Measure the reliability, and weigh the unlabelled terms by it from ``next_step`` on.

        Args:
            outputs: outputs of the validation steps: "tp_hard", "fp_hard", "fn_hard", and "voxels"
                of all classes or of each.

        Returns:
            The reliability.
        """
        voxels = np.array(sum(output["voxels"] for output in outputs))
        counts = self.ranks.all_reduce([*sum_counts(outputs, "{}_hard"), voxels])
        class_reliability = compute_class_reliability(*counts)
        if self.labelled_counts:
            last = max(1, len(self.labelled_counts) // LAST_QUARTER)
            device = self.labelled_counts[-1].device  # counts of a checkpoint are on the CPU
            recent = torch.stack([step.to(device) for step in self.labelled_counts[-last:]])
            augmented = self.ranks.all_reduce([*recent.sum(0).cpu().double().numpy()])
            class_reliability = estimate_unseen_reliability(
                class_reliability, compute_class_reliability(*augmented)
            )
            self.labelled_counts.clear()
        reliability = self.weight.combine_classes(class_reliability, next_step)
        if reliability > 0 and self.weight.reliability == 0:
            self.say(f"the unlabelled terms begin at step {next_step}")
        if reliability == 0 and next_step >= self.weight.settings.unlabelled_start_steps:
            self.say(
                "WARNING: no class is predicted yet, the unlabelled terms wait. A longer training "
                "may be needed (plans['semi']: epochs)"
            )
        self.weight.reliability = reliability
        return reliability


def sum_counts(outputs: Sequence[Mapping[str, Any]], name: str) -> list[np.ndarray]:
    """Return true positives, false positives and false negatives, each (classes,).

    >>> sum_counts([{"tp": [1, 2], "fp": [0, 0], "fn": [3, 0]}] * 2, "{}")
    [array([2, 4]), array([0, 0]), array([6, 0])]

    Args:
        name: key of a count, with "{}" for tp, fp or fn.
    """
    return [np.sum([output[name.format(key)] for output in outputs], 0) for key in COUNTS]


def mean_dice(outputs: Sequence[Mapping[str, Any]], name: str, ranks: Ranks) -> float:
    """Return the mean Dice of all classes that occur in the patches of all processes."""
    tp, fp, fn = ranks.all_reduce(sum_counts(outputs, name))
    return float(np.nanmean(2 * tp / (2 * tp + fp + fn)))


def describe_collapse(pseudo_label: float | None, labelled: float | None) -> str | None:
    """Return a warning if pseudo labels have nearly no foreground although labels have; or None.

    Args:
        pseudo_label: mean fraction of foreground voxels in the pseudo labels of an epoch.
        labelled: mean fraction of foreground voxels in the labels.
    """
    if pseudo_label is None or not labelled or pseudo_label >= 0.01 * labelled:
        return None
    return (
        f"WARNING: the pseudo labels have nearly no foreground ({pseudo_label:.1e} of the voxels; "
        f"the labels have {labelled:.1e}): the teacher collapses. Lower the weight of the "
        f"unlabelled term, lengthen ramp_up_steps, or check that the unlabelled images show the "
        f"same organs"
    )
