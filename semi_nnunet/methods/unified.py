"""Unified: Mean Teacher, plus boxes of unlabelled patches in labelled ones.

The teacher is a moving average of the student (Tarvainen & Valpola 2017). Its predictions on the
weak view of unlabelled patches are learned in two ways:

* A box of an unlabelled patch, with the teacher's labels, is pasted into each labelled patch, which
  is then learned like a labelled one: the half of BCP (Bai et al. 2023) with a certain context, and
  with the small boxes of this package's MixMatch.
* On a strong view of unlabelled patches with mixed boxes, the student must agree with the teacher's
  probabilities, as in :mod:`semi_nnunet.methods.mean_teacher`.

The gradient of the second term is limited to a multiple of that of labelled patches and boxes
together. The multiple falls from 2 to 1/4: the network first learns from many images, and then its
labels.

This combination is not published. It won a tournament of components on validation cases of four
data sets (docs/results/tournament.md): it was above its baseline on all four, by 3.2 points on
average, more than any other candidate.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from semi_nnunet.augment.mixing import TargetPatches, sample_boxes
from semi_nnunet.core.pseudo_labels import hard_pseudo_label
from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.settings.methods import UnifiedSettings
from semi_nnunet.training.teacher import ConsistentTeacherTrainer
from semi_nnunet.training.trainer import Term


class SemiUnifiedTrainer(ConsistentTeacherTrainer):
    settings_class = UnifiedSettings

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        yield self.supervised(labelled)
        target = self.teacher_probs(unlabelled.x_weak)
        self.note_pseudo_labels(target, unlabelled.mask)
        boxes = self.boxes_loss(labelled, unlabelled, target)
        yield Term("boxes", boxes, self.settings.boxes_weight, limited=False)
        yield self.consistency_term(unlabelled, target, unlabelled.mask)

    def boxes_loss(
        self, labelled: LabelledBatch, unlabelled: UnlabelledBatch, probs: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss on labelled patches with a box of an unlabelled patch in each.

        Unlabelled patches are repeated if there are fewer. Classes that a labelled patch does not
        annotate do not count in its box either.

        Args:
            labelled, unlabelled: the batch.
            probs: of the teacher, for the unlabelled patches.
        """
        count, spatial = len(labelled.x), labelled.x.shape[2:]
        guess = hard_pseudo_label(probs, self.exclusive)
        inside = TargetPatches(unlabelled.x_strong, guess, unlabelled.mask).repeated(count)
        around = TargetPatches(labelled.x, *self.annotation(labelled.target), labelled.annotated)
        box = sample_boxes(count, spatial, self.settings.box_edge, labelled.x.device)
        return self.pseudo_label_loss(
            self.predict(torch.where(box, inside.x, around.x)),
            torch.where(box, inside.target, around.target),
            torch.where(box, inside.mask, around.mask),
            annotated=around.annotated,
        )
