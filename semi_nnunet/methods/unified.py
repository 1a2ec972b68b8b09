"""Unified: Mean Teacher within nnU-Net's batch, or with boxes of unlabelled patches.

The teacher is a moving average of the student (Tarvainen & Valpola 2017). On a strong view of
unlabelled patches with mixed boxes, the student must agree with the teacher's probabilities on the
weak view, as in :mod:`semi_nnunet.methods.mean_teacher`. Half of nnU-Net's batch is labelled, the
other half unlabelled, so that a step takes 1.2 times the operations of a supervised step.

Batches of 2 or 3 patches stay labelled, and as many unlabelled patches are added
(``variant=whole_batch`` does so with every batch; 1.8 times the operations). Three things differ:

* A box of the strong view of an unlabelled patch, with the teacher's hard labels, is pasted into a
  labelled patch, which is then learned like a labelled one: the half of BCP (Bai et al. 2023) in
  which the surroundings have true labels, with smaller boxes. As the weight of the unlabelled terms
  grows, more patches get a box.
* Consistency is computed in every second step.
* Its gradient is at most 2 (at the start) to 1/4 (at the end) times that of the labels.

These combinations are not published. A tournament of components on validation cases of four data
sets chose ``variant=full`` (docs/results/tournament.md): whole batches, boxes in copies of the
labelled patches, and consistency in every step, which take 3.3 times as long as a supervised step.
``variant=whole_batch`` came next. In the same time, half of each batch gained more, and boxes in it
helped on none of three data sets (docs/results/equal_time.md).
"""

from __future__ import annotations

from collections.abc import Iterable

import torch

from semi_nnunet.augment.mixing import TargetPatches, sample_boxes
from semi_nnunet.core.partial_labels import per_voxel
from semi_nnunet.core.pseudo_labels import hard_pseudo_label
from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.settings.methods import UnifiedSettings
from semi_nnunet.training.batches import paste_boxes
from semi_nnunet.training.teacher import ConsistentTeacherTrainer
from semi_nnunet.training.trainer import Term


class SemiUnifiedTrainer(ConsistentTeacherTrainer):
    """Mean Teacher within nnU-Net's batch; small batches get boxes of unlabelled patches."""

    settings_class = UnifiedSettings

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        settings = self.settings
        has_boxes = settings.boxes_weight > 0
        pastes = has_boxes and not settings.boxes_in_copies
        if not pastes:
            yield self.supervised(labelled)
        target = self.teacher_probs(unlabelled.x_weak)
        self.note_pseudo_labels(target, unlabelled.mask)
        if pastes:
            yield self.supervised(self.paste(labelled, unlabelled, target))
        elif has_boxes:
            boxes = self.boxes_loss(labelled, unlabelled, target)
            yield Term("boxes", boxes, settings.boxes_weight, limited=False)
        if self.step % settings.consistency_every_steps == 0:
            yield self.consistency_term(unlabelled, target, unlabelled.mask)

    @property
    def steps_in_cycle(self) -> int:
        return int(self.settings.consistency_every_steps)

    def paste(
        self, labelled: LabelledBatch, unlabelled: UnlabelledBatch, probs: torch.Tensor
    ) -> LabelledBatch:
        """Paste a box of an unlabelled patch into some of the labelled patches.

        A patch with many ignored voxels gets a box less often, and none if half of it is ignored:
        between scribbles nothing corrects wrong labels in a box, so that classes grow
        (docs/sparse_labels.md).

        Args:
            labelled, unlabelled: the batch.
            probs: the teacher's probabilities for the unlabelled patches.
        """
        inside, box = self.draw_boxes(labelled, unlabelled, probs)
        annotated = self.annotated_mask(labelled.target)
        share = self.settings.boxes_weight * self.unlabelled_weight.at(self.step)
        share = share * (2.0 * annotated.float().flatten(1).mean(1) - 1.0)
        has_box = torch.rand(len(box), device=box.device) < share
        box &= per_voxel(has_box[:, None], box.ndim)
        scales = self._get_deep_supervision_scales()
        return paste_boxes(labelled, inside, box, self.exclusive, scales)

    def boxes_loss(
        self, labelled: LabelledBatch, unlabelled: UnlabelledBatch, probs: torch.Tensor
    ) -> torch.Tensor:
        """Return the loss on copies of labelled patches with a box of an unlabelled one in each.

        Classes that a labelled patch does not annotate do not count in its box either.

        Args:
            labelled, unlabelled: the batch.
            probs: the teacher's probabilities for the unlabelled patches.
        """
        inside, box = self.draw_boxes(labelled, unlabelled, probs)
        around = TargetPatches(labelled.x, *self.annotation(labelled.target), labelled.annotated)
        return self.pseudo_label_loss(
            self.predict(torch.where(box, inside.x, around.x)),
            torch.where(box, inside.target, around.target),
            torch.where(box, inside.mask, around.mask),
            annotated=around.annotated,
        )

    def draw_boxes(
        self, labelled: LabelledBatch, unlabelled: UnlabelledBatch, probs: torch.Tensor
    ) -> tuple[TargetPatches, torch.Tensor]:
        """Return an unlabelled patch and a random box for every labelled patch.

        Unlabelled patches are repeated if there are fewer.
        """
        count, spatial = len(labelled.x), labelled.x.shape[2:]
        guess = hard_pseudo_label(probs, self.exclusive)
        patches = TargetPatches(unlabelled.x_strong, guess, unlabelled.mask).repeated(count)
        return patches, sample_boxes(count, spatial, self.settings.box_edge, labelled.x.device)
