"""Bidirectional Copy-Paste (Bai et al., CVPR 2023, arXiv:2305.00673).

A box of an unlabelled patch is pasted into a labelled one, and a box of a labelled patch into an
unlabelled one, images and labels alike, with the teacher's labels for unlabelled voxels (eq. 2-5).
The student learns both mixtures, labelled voxels with weight 1, pseudo-labelled ones with alpha
(eq. 8).

Differs from the paper: there is one training, which starts with plain labelled patches, and the
mixtures are ramped and weighted by the reliability of the network. The paper pre-trains on boxes
pasted between labelled patches; this, and mixtures with more weight than the labels, prevent a
short training from learning its labels (docs/results/journal.md, "BCP where steps are few"). Plain
labelled patches are learned throughout, with nnU-Net's deep supervision; each mixture has its own
box; the Dice is that of the whole batch without background, as in nnU-Net; the unlabelled patch is
in its strong view; only the largest component is kept if that is selected, because it is wrong for
organs in several pieces. ``variant paper`` undoes these differences as far as possible: constant
full weight after ``unlabelled_start_steps``, unchanged patches, and the largest component.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from semi_nnunet.augment.mixing import TargetPatches, sample_boxes
from semi_nnunet.core.pseudo_labels import hard_pseudo_label, keep_largest_in_patches
from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.settings.methods import BCPSettings
from semi_nnunet.training.teacher import TeacherTrainer
from semi_nnunet.training.trainer import Term

Mixture = list[tuple[float, TargetPatches]]  # weight and mask of each region of mixed patches


class SemiBCPTrainer(TeacherTrainer):
    """Paste boxes between labelled and unlabelled patches; a teacher labels unlabelled voxels."""

    settings_class = BCPSettings

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        settings = self.settings
        yield self.supervised(labelled)
        probs = self.teacher_probs(unlabelled.x_weak)
        self.note_pseudo_labels(probs, unlabelled.mask)
        guess = hard_pseudo_label(probs, self.exclusive)
        if settings.largest_component:
            guess = keep_largest_in_patches(guess, self.exclusive)
        truth = TargetPatches(labelled.x, *self.annotation(labelled.target), labelled.annotated)
        guesses = TargetPatches(unlabelled.x_strong, guess, unlabelled.mask)
        alpha = settings.pseudo_label_weight
        inward = self.mixture(truth.half(False), guesses.half(False), 1.0, alpha)
        outward = self.mixture(guesses.half(True), truth.half(True), alpha, 1.0)
        yield Term("mixtures", self.mixtures_loss(inward, outward), settings.mixture_weight)

    def mixture(
        self,
        around: TargetPatches,
        inside: TargetPatches,
        around_weight: float,
        inside_weight: float,
    ) -> Mixture:
        """Paste a box of ``inside`` into ``around`` (eq. 2-5), repeating the smaller group."""
        size = max(len(around), len(inside))
        around, inside = around.repeated(size), inside.repeated(size)
        box = sample_boxes(1, around.x.shape[2:], self.settings.box_edge, around.x.device)
        x = torch.where(box, inside.x, around.x)
        target = torch.where(box, inside.target, around.target)
        return [
            (around_weight, TargetPatches(x, target, around.mask & ~box, around.annotated)),
            (inside_weight, TargetPatches(x, target, inside.mask & box, inside.annotated)),
        ]

    def mixtures_loss(self, *mixtures: Mixture) -> torch.Tensor:
        """Return the weighted sum of the losses of all regions (eq. 8), in one forward pass."""
        images = [mixture[0][1].x for mixture in mixtures]
        logits = self.predict(torch.cat(images)).split([len(x) for x in images])
        losses = [
            weight
            * self.pseudo_label_loss(z, region.target, region.mask, annotated=region.annotated)
            for z, mixture in zip(logits, mixtures, strict=True)
            for weight, region in mixture
        ]
        return torch.stack(losses).sum()
