"""Mean Teacher (Tarvainen & Valpola 2017, arXiv:1703.01780) with CutMix (French et al. 2020).

The teacher is a moving average of the student. It predicts the weak view of an unlabelled patch;
the student, shown a strong view of the same voxels with a box of another patch, must agree with the
teacher's probabilities, mixed by the same box.

Differs from the paper: the views are voxel-aligned (they differ only in appearance); consistency is
on full-resolution outputs of unlabelled patches only; boxes are mixed, without which Mean Teacher
gains next to nothing over a well-trained nnU-Net; and a Dice loss is added to the squared
difference, without which small organs shrink. ``variant`` has published settings for medical
images: ``ssl4mis``; ``pancreas``, with a weight of 50; ``oct``, whose decay rises from .99 to .999
(it also uses ``optimizer adam, lr_schedule plateau, supervised_loss dice_focal``, which are
settings of all trainers, and five unlabelled patches for each labelled one).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from semi_nnunet.augment.intensity import add_clamped_noise
from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.settings.common import CutMixSettings
from semi_nnunet.settings.schema import published, setting
from semi_nnunet.settings.teacher import ConsistencySettings
from semi_nnunet.training.teacher import ConsistentTeacherTrainer
from semi_nnunet.training.trainer import Term

PLAIN = {  # consistency from the first step on, without mixing
    "consistency_dice": 0.0, "cutmix_probability": 0.0, "unlabelled_start_steps": 0,
    "follow_reliability": False,
}  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class MeanTeacherSettings(CutMixSettings, ConsistencySettings):
    teacher_noise: float = setting(
        0.0, "sd of noise on the teacher's input, clamped at 2 sd (SSL4MIS: 0.1)", low=0
    )
    variant: str = published(
        ssl4mis=PLAIN
        | {"appearance_strength": 0.0, "teacher_noise": 0.1, "consistency_weight": 0.1},
        pancreas=PLAIN | {"consistency_weight": 50.0},
        oct=PLAIN | {"ema_decay": 0.99, "ema_decay_after_ramp_up": 0.999},
    )


class SemiMeanTeacherTrainer(ConsistentTeacherTrainer):
    settings_class = MeanTeacherSettings

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        yield self.supervised(labelled)
        noisy = add_clamped_noise(unlabelled.x_weak, self.settings.teacher_noise)
        target = self.teacher_probs(noisy)
        self.note_pseudo_labels(target, unlabelled.mask)
        yield self.consistency_term(unlabelled, target, unlabelled.mask)
