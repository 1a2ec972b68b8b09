"""Mean Teacher (Tarvainen & Valpola 2017, arXiv:1703.01780) with CutMix (French et al. 2020).

The teacher is a moving average of the student. It predicts on the weak view of an unlabelled patch;
the student, shown a strong view of the same voxels with a box of another patch (CutMix), must agree
with the teacher's probabilities, mixed by the same box.

Differs from the papers: the views are voxel-aligned (they differ only in appearance); consistency
is on full-resolution outputs of unlabelled patches only; and a Dice loss is added to the squared
difference, without which small organs shrink. ``variant`` has the settings of public code for
medical images: ``ssl4mis``, whose teacher sees added noise; ``pancreas``, with a weight of 50;
``oct``, whose decay rises from .99 to .999 (it also uses ``optimizer=adam``,
``lr_schedule=plateau`` and ``supervised_loss=dice_focal``, which are settings of all trainers, and
five unlabelled patches for each labelled one).
"""

from __future__ import annotations

from collections.abc import Iterable

from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.settings.methods import MeanTeacherSettings
from semi_nnunet.training.teacher import ConsistentTeacherTrainer
from semi_nnunet.training.trainer import Term


class SemiMeanTeacherTrainer(ConsistentTeacherTrainer):
    """Agree with a moving average of the network on changed views of unlabelled patches."""

    settings_class = MeanTeacherSettings

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        yield self.supervised(labelled)
        target = self.teacher_probs(self.add_teacher_noise(unlabelled.x_weak))
        self.note_pseudo_labels(target, unlabelled.mask)
        yield self.consistency_term(unlabelled, target, unlabelled.mask)
