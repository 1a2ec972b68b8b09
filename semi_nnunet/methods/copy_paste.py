"""Bidirectional Copy-Paste (Bai et al., CVPR 2023, arXiv:2305.00673).

A box of an unlabelled patch is pasted into a labelled one, and the other way round, images and
labels alike, the unlabelled side with the teacher's labels (eq. 2-5). The student is taught on both
mixtures, the labelled voxels with weight 1, the pseudo-labelled ones with alpha (eq. 8).

Differs from the paper: one training, which begins with labelled patches as they are, and the
mixtures are ramped and multiplied by the reliability of the network. The paper pre-trains on boxes
pasted between labelled patches: that, and mixtures that weigh more than the labels, keep a short
training from learning its labels (docs/results/journal.md, "BCP where steps are few"). Plain
labelled patches are seen all along, with nnU-Net's deep supervision; each of the two mixtures has a
box of its own; the Dice is of the whole batch and of the foreground, as nnU-Net's; the unlabelled
patch is in its strong view; the largest component is kept only where that is asked for, because it
is wrong for organs in several pieces. ``variant paper`` takes back what settings can: mixtures of
full and constant weight after ``unlabelled_start_steps``, patches as they are, and the largest
component.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch

from semi_nnunet.augment.mixing import TargetPatches, sample_boxes
from semi_nnunet.core.pseudo_labels import hard_pseudo_label, keep_largest_component
from semi_nnunet.data.loading import LabelledBatch, UnlabelledBatch
from semi_nnunet.settings.schema import published, setting
from semi_nnunet.settings.teacher import TeacherSettings
from semi_nnunet.training.teacher import TeacherTrainer
from semi_nnunet.training.trainer import Term


@dataclass(frozen=True, kw_only=True)
class BCPSettings(TeacherSettings):
    box_edge: float = setting(2 / 3, "of the patch (beta, sec. 4.2)", low=0.01, below=1)
    mixture_weight: float = setting(
        0.25, "of each of two mixtures; 0.5 (authors' code) keeps labels from being learned", low=0
    )
    pseudo_label_weight: float = setting(0.5, "alpha of eq. 8, of pseudo-labelled voxels", low=0)
    largest_component: bool = setting(
        False, "an organ may come in several pieces; the paper keeps the largest (LA, ACDC)"
    )
    variant: str = published(
        paper={
            "mixture_weight": 0.5, "largest_component": True, "appearance_strength": 0.0,
            "ramp_up": "constant", "follow_trust": False,
        }
    )  # fmt: skip


@dataclass(frozen=True)
class Mixture:
    """Patches into which boxes are pasted.

    Args:
        x: images (B, C, *spatial).
        target: one-hot labels.
        regions: the weight, the mask, and the annotated classes of the voxels around the box, then
            those inside.
    """

    x: torch.Tensor
    target: torch.Tensor
    regions: tuple[tuple[float, torch.Tensor, torch.Tensor | None], ...]


class SemiBCPTrainer(TeacherTrainer):
    settings_class = BCPSettings

    @property
    def smallest_unlabelled_batch(self) -> int:
        return 2

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        settings = self.settings
        yield self.supervised(labelled)
        probs = self.teacher_probs(unlabelled.x_weak)
        self.note_pseudo_labels(probs, unlabelled.mask)
        target = hard_pseudo_label(probs, self.exclusive)
        if settings.largest_component:
            target = keep_largest_component(target, self.exclusive)
        known = TargetPatches(labelled.x, *self.annotation(labelled.target), labelled.annotated)
        guessed = TargetPatches(unlabelled.x_strong, target, unlabelled.mask)
        alpha = settings.pseudo_label_weight
        inward = self.mixture(known.half(False), guessed.half(False), 1.0, alpha)
        outward = self.mixture(guessed.half(True), known.half(True), alpha, 1.0)
        yield Term("mixtures", self.mixtures_loss(inward, outward), settings.mixture_weight)

    def mixture(
        self,
        around: TargetPatches,
        inside: TargetPatches,
        around_weight: float,
        inside_weight: float,
    ) -> Mixture:
        """``around`` with a box of ``inside`` pasted in, each region with its weight (eq. 2-5).

        The side that has fewer patches lends some of them twice.
        """
        size = max(len(around.x), len(inside.x))
        around, inside = around.lent(size), inside.lent(size)
        spatial = around.x.shape[2:]
        box = sample_boxes(1, spatial, self.settings.box_edge, around.x.device)  # as the paper's
        return Mixture(
            torch.where(box, inside.x, around.x),
            torch.where(box, inside.target, around.target),
            (
                (around_weight, around.mask & ~box, around.annotated),
                (inside_weight, inside.mask & box, inside.annotated),
            ),
        )

    def mixtures_loss(self, *mixtures: Mixture) -> torch.Tensor:
        """The sum of the losses of all regions (eq. 8); the student sees the mixtures at once."""
        logits = self.predict(torch.cat([mixture.x for mixture in mixtures]))
        split = logits.split([len(mixture.x) for mixture in mixtures])
        losses = [
            weight * self.pseudo_label_loss(part, mixture.target, mask, annotated=annotated)
            for part, mixture in zip(split, mixtures, strict=True)
            for weight, mask, annotated in mixture.regions
        ]
        return torch.stack(losses).sum()
