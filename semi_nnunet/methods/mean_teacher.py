"""Mean Teacher (Tarvainen & Valpola 2017, arXiv:1703.01780) with CutMix (French et al. 2020).

The teacher is a moving average of the student. It predicts the weak view of an unlabelled patch;
the student, shown a strong view of the same voxels into which a box of another patch is pasted,
must agree with the teacher's probabilities, mixed by the same box.

Differs from the paper: the views are voxel-aligned (geometry is shared, appearance is not),
consistency is on full-resolution outputs of unlabelled patches alone, and boxes are mixed, without
which Mean Teacher gains next to nothing over a well-trained nnU-Net. The published medical variants
are settings:

* classical (SSL4MIS): ``cutmix_probability 0, appearance_strength 0, teacher_noise 0.1,
  consistency_weight 0.1``
* weight ramped to 50 (pancreas): ``cutmix_probability 0, consistency_weight 50``
* decay .99, then .999 (OCT): ``ema_decay 0.99, ema_decay_after_ramp_up 0.999, supervised_loss
  "dice_focal"``
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import nn

from semi_nnunet.augment.intensity import clamped_noise
from semi_nnunet.augment.mixing import sample_box_mix
from semi_nnunet.common_settings import SemiSettings
from semi_nnunet.core.consistency import probability_mse
from semi_nnunet.core.ema import EmaTeacher
from semi_nnunet.data.loading import LabelledBatch, UnlabelledBatch
from semi_nnunet.planning import rules
from semi_nnunet.settings import planned, setting
from semi_nnunet.trainer import SemiTrainer, Term


@dataclass(frozen=True, kw_only=True)
class MeanTeacherSettings(SemiSettings):
    ema_decay: float = planned(rules.ema_decay, low=0, below=1)
    ema_decay_after_ramp_up: float | None = setting(
        None, "the same decay throughout (the OCT variant rises to .999)", low=0, below=1
    )
    consistency_weight: float = setting(
        10.0,
        "on squared probability differences averaged over voxels and classes (prototype)",
        low=0,
    )
    cutmix_probability: float = setting(
        1.0, "every unlabelled patch is mixed (French et al. 2020)", low=0, high=1
    )
    cutmix_edge: float = setting(
        2 / 3, "of the box, relative to the patch (Bai et al. 2023)", low=0.01, high=1
    )
    teacher_noise: float = setting(
        0.0, "sd of noise on the teacher's input, clamped at twice that (SSL4MIS: 0.1)", low=0
    )


class SemiMeanTeacherTrainer(SemiTrainer):
    settings_class = MeanTeacherSettings

    def companions(self) -> dict[str, nn.Module]:
        return {"teacher": EmaTeacher(self.bare_network)}

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        yield self.supervised(labelled)
        target = self.teacher_probs(unlabelled.x_weak)
        self.note_pseudo_labels(target, unlabelled.mask)
        mix = sample_box_mix(target, self.settings.cutmix_edge, self.settings.cutmix_probability)
        prediction = self.probs(self.predict(mix(unlabelled.x_strong)))
        consistency = probability_mse(prediction, mix(target), mix(unlabelled.mask))
        yield Term("consistency", consistency, self.settings.consistency_weight)

    def teacher_probs(self, x_weak: torch.Tensor) -> torch.Tensor:
        """The teacher's probabilities (B, classes or regions, *spatial), float32, no gradient."""
        sd = self.settings.teacher_noise
        x = x_weak + clamped_noise(x_weak, sd, 2 * sd) if sd else x_weak
        return self.probs(self.predict_with(self.companion("teacher"), x))

    def after_optimizer_step(self, step: int) -> None:
        settings = self.settings
        ramped_up = step >= settings.ramp_up_start_steps + settings.ramp_up_steps
        later = settings.ema_decay_after_ramp_up
        decay = later if later is not None and ramped_up else settings.ema_decay
        self.companion("teacher").update(self.bare_network, step, decay)

    def prediction_network(self) -> nn.Module:
        return self.companion("teacher").module
