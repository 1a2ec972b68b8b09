"""Uncertainty-aware Mean Teacher (Yu et al., MICCAI 2019, arXiv:1907.07034).

As in Mean Teacher, but the student only follows the teacher where the teacher is certain. The
teacher predicts each patch several times under noise and dropout; u is the entropy of the mean
prediction (eq. 2-3), and a voxel counts if u < H (eq. 4), where H rises from 3/4 of the largest
entropy to all of it.

Differs from the paper: H is relative to ln C for C classes (the authors' code always uses ln 2);
nnU-Net's networks have no dropout, so the stochastic passes drop channels of the bottleneck; the
target itself is predicted only under noise (paper: also under dropout). By default the student's
view is strong and mixed, and a Dice loss is added to the squared difference, as in this package's
Mean Teacher; ``variant paper`` undoes that.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import cached_property

import torch
from torch import nn

from semi_nnunet.core.ramps import gaussian_ramp
from semi_nnunet.core.stochastic import add_feature_dropout
from semi_nnunet.core.uncertainty import entropy, max_entropy
from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.settings.methods import UncertaintyAwareSettings
from semi_nnunet.training.teacher import ConsistentTeacherTrainer
from semi_nnunet.training.trainer import Term


class SemiUncertaintyAwareTrainer(ConsistentTeacherTrainer):
    """Agree with a moving average of the network where its repeated predictions are certain."""

    settings_class = UncertaintyAwareSettings

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        yield self.supervised(labelled)
        target = self.noisy_probs(self.teacher, unlabelled.x_weak)
        uncertainty = self.uncertainty(unlabelled.x_weak)
        certain = (uncertainty < self.threshold(target.shape[1])) & unlabelled.mask
        self.note_pseudo_labels(target, unlabelled.mask, certain)
        yield self.consistency_term(unlabelled, target, certain)

    def noisy_probs(self, teacher: nn.Module, x_weak: torch.Tensor) -> torch.Tensor:
        """Return one prediction of the patch under input noise."""
        return self.probs(self.predict_with(teacher, self.add_teacher_noise(x_weak)))

    @cached_property
    def disturbed_teacher(self) -> nn.Module:
        """The teacher with dropout."""
        return add_feature_dropout(self.teacher, self.settings.dropout)

    def uncertainty(self, x_weak: torch.Tensor) -> torch.Tensor:
        """Return the entropy of the mean of the stochastic passes, (B, 1, *spatial), in nats."""
        teacher, passes = self.disturbed_teacher, self.settings.stochastic_passes
        mean = self.noisy_probs(teacher, x_weak) / passes
        for _ in range(passes - 1):
            mean += self.noisy_probs(teacher, x_weak) / passes
        return entropy(mean, exclusive=self.exclusive)

    def threshold(self, channels: int) -> float:
        """Return H at this step, in nats."""
        start = self.settings.threshold_start
        fraction = start + (1.0 - start) * gaussian_ramp(self.step, self.settings.total_steps)
        return fraction * max_entropy(channels, exclusive=self.exclusive)
