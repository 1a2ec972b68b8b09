"""How much the unlabelled terms count: as their ramp-up says, and as reliable as the network is.

The setting ``follow_trust``, the history's column ``trust`` and the checkpoint's key of that name
keep the word of version 0.2.0 for the reliability.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from semi_nnunet.core.counts import count_classes
from semi_nnunet.core.ramps import ramp
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.training.distributed import Ranks

COUNTS = ("tp", "fp", "fn")
LAST_PART = 4  # of an epoch's steps: then the network is nearly the one that is validated


def reliability_of_classes(
    tp: np.ndarray, fp: np.ndarray, fn: np.ndarray, voxels: np.ndarray | int
) -> np.ndarray:
    """Dice above that of calling every voxel the class: (Dice - c) / (1 - c), c = 2 p / (1 + p).

    Args:
        tp, fp, fn: (classes,) voxels.
        voxels: looked at, for all classes or for each, of which a class has the fraction p.

    Returns:
        (classes,) in [0, 1]; NaN for a class that no voxel shows.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        dice = 2 * tp / (2 * tp + fp + fn)
        p = (tp + fn) / voxels
        chance = 2 * p / (1 + p)
        reliability = np.clip((dice - chance) / (1 - chance), 0, 1)
    return np.where(tp + fn > 0, reliability, np.nan)


def reliability_on_unknown(known: np.ndarray, augmented: np.ndarray) -> np.ndarray:
    """Reliability on unknown images, estimated without validation cases: augmented^2 / known.

    With fold "all" the validation cases are trained on. A network that loses a part of what it
    knows of them once they are augmented is taken to lose that part again on images that it was not
    trained on. Measured against such images; see the documentation's page on Kvasir-SEG.

    Args:
        known: (classes,) :func:`reliability_of_classes` of patches that are trained on, as they
            are.
        augmented: (classes,) that of patches of the same cases as they are augmented for training,
            in the last quarter of the steps before.

    Returns:
        (classes,) at most ``known``; NaN for a class that no voxel shows in one of them.
    """
    kept = np.minimum(augmented, known)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(known == 0, kept, kept**2 / known)


class UnlabelledWeight:
    """The factor on every unlabelled term: ramp-up x (reliability of the deployed network)^2.

    Consistency with a network that knows little teaches that little: it was seen to cost three
    points on polyps (two with the reliability itself as the factor), and a small organ altogether.
    Reliability is that of the validation, with fold "all" :func:`reliability_on_unknown`. Until
    ``unlabelled_start_steps`` the class that is known least decides, then their mean, so that a
    class that is never learned does not silence the others. Where ``follow_trust`` is off, as in
    the papers, reliability is 1, and the ramp begins at ``unlabelled_start_steps``; 0 of these is
    that.

    Args:
        settings: of the trainer (``unlabelled_weight``, ``unlabelled_start_steps``, ``ramp_up``,
            ``ramp_up_steps``, ``follow_trust``).
    """

    def __init__(self, settings: SemiSettings):
        self.settings = settings
        self.follows = settings.follow_trust and settings.unlabelled_start_steps > 0
        self.reliability = 0.0 if self.follows else 1.0

    def at(self, step: int) -> float:
        """The factor in optimizer step ``step``."""
        settings = self.settings
        start = 0 if self.follows else settings.unlabelled_start_steps
        if step < start:
            return 0.0
        growth = ramp(settings.ramp_up, step - start, settings.ramp_up_steps)
        return settings.unlabelled_weight * growth * self.reliability**2

    def reliability_after(self, of_classes: np.ndarray, next_step: int) -> float:
        """Reliability from ``next_step`` on, after a validation.

        Args:
            of_classes: (classes,); NaN, of a class without voxels, counts as 0 at first.
            next_step: of the optimizer.
        """
        if not self.follows:
            return 1.0
        if next_step < self.settings.unlabelled_start_steps:
            return float(np.nan_to_num(of_classes).min())
        seen = of_classes[~np.isnan(of_classes)]
        return float(seen.mean()) if len(seen) else 0.0


class ReliabilityMeter:
    """Measures the reliability of the deployed network at the end of every epoch.

    Args:
        weight: that follows it.
        trains_on_validated: whether validation cases are trained on (fold "all"), so that what the
            student gets right of augmented labelled patches is needed, too.
        ranks: processes whose voxels are counted together.
        say: prints a line into the training's log.
    """

    def __init__(
        self,
        weight: UnlabelledWeight,
        trains_on_validated: bool,
        ranks: Ranks,
        say: Callable[[str], None],
    ):
        self.weight, self.ranks, self.say = weight, ranks, say
        self.counts_labelled = weight.follows and trains_on_validated
        self.labelled_counts: list[torch.Tensor] = []  # of the steps of an epoch

    def note_labelled(
        self,
        logits: torch.Tensor,
        target: torch.Tensor,
        exclusive: bool,
        ignore_label: int | None,
        annotated: torch.Tensor | None = None,
    ) -> None:
        """Count what the student gets right of the augmented labelled patches, where it matters.

        Args:
            logits: (B, classes or regions, *spatial).
            target: nnU-Net's at the same resolution.
            exclusive: whether the classes exclude each other.
            ignore_label: voxels of it are not counted.
            annotated: bool (B, classes or regions), those that count in each patch; None: all.
        """
        if self.counts_labelled:
            counts = count_classes(logits.detach(), target, exclusive, ignore_label, annotated)
            self.labelled_counts.append(counts)

    def state(self) -> list[torch.Tensor]:
        """What was noted since the last validation, for a checkpoint within an epoch."""
        return [counts.cpu() for counts in self.labelled_counts]

    def restore(self, state: Sequence[torch.Tensor]) -> None:
        """Take over :meth:`state`."""
        self.labelled_counts = list(state)

    def after_validation(self, outputs: Sequence[Mapping[str, Any]], next_step: int) -> float:
        """Measure, and set the weight of the unlabelled terms from ``next_step`` on.

        Args:
            outputs: of the validation steps: "tp_hard", "fp_hard", "fn_hard" and "voxels", of all
                classes or of each.
            next_step: of the optimizer.

        Returns:
            The reliability.
        """
        seen = sum(output["voxels"] for output in outputs)
        tp, fp, fn, voxels = self.ranks.total([*summed_counts(outputs, "{}_hard"), np.array(seen)])
        of_classes = reliability_of_classes(tp, fp, fn, voxels)
        if self.labelled_counts:
            last = max(1, len(self.labelled_counts) // LAST_PART)
            device = self.labelled_counts[-1].device  # those of a checkpoint come from the CPU
            counted = torch.stack([one.to(device) for one in self.labelled_counts[-last:]])
            counts = self.ranks.total([*counted.sum(0).cpu().double().numpy()])
            of_classes = reliability_on_unknown(of_classes, reliability_of_classes(*counts))
            self.labelled_counts.clear()
        reliability = self.weight.reliability_after(of_classes, next_step)
        if reliability > 0 and self.weight.reliability == 0:
            self.say(f"the unlabelled terms begin at step {next_step}")
        if reliability == 0 and next_step >= self.weight.settings.unlabelled_start_steps:
            self.say(
                "WARNING: no class is predicted yet, the unlabelled terms wait. A longer training "
                "may be needed (plans['semi']: epochs)"
            )
        self.weight.reliability = reliability
        return reliability


def summed_counts(outputs: Sequence[Mapping[str, Any]], name: str) -> list[np.ndarray]:
    """True positives, false positives and false negatives of the classes, each (classes,).

    Args:
        outputs: of the validation steps.
        name: of a count in them, "{}" for tp, fp or fn.
    """
    return [np.sum([output[name.format(key)] for output in outputs], 0) for key in COUNTS]


def mean_dice(outputs: Sequence[Mapping[str, Any]], name: str, ranks: Ranks) -> float:
    """The mean Dice of the classes that occur in the patches of all processes.

    Args:
        outputs, name: as in :func:`summed_counts`.
        ranks: the processes.
    """
    tp, fp, fn = ranks.total(summed_counts(outputs, name))
    return float(np.nanmean(2 * tp / (2 * tp + fp + fn)))


def collapse_warning(pseudo_label: float | None, labelled: float | None) -> str | None:
    """What to say where pseudo labels have next to no foreground although labels have; or None.

    Args:
        pseudo_label: mean fraction of foreground voxels in the pseudo labels of an epoch.
        labelled: the same in the labels.
    """
    if pseudo_label is None or not labelled or pseudo_label >= 0.01 * labelled:
        return None
    return (
        f"WARNING: the pseudo labels have nearly no foreground ({pseudo_label:.1e} of the voxels; "
        f"the labels have {labelled:.1e}): the teacher collapses. Lower the weight of the "
        f"unlabelled term, lengthen ramp_up_steps, or check that the unlabelled images show the "
        f"same organs"
    )
