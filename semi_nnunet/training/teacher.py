"""The averaged teacher (Tarvainen & Valpola 2017, arXiv:1703.01780), and trainers that have one.

Methods build on these trainers.
"""

from __future__ import annotations

import copy

import torch
from torch import nn

from semi_nnunet.core.consistency import probability_dice_loss, probability_mse
from semi_nnunet.core.pseudo_labels import ClassThresholds, hard_pseudo_label
from semi_nnunet.loading.steps import UnlabelledBatch
from semi_nnunet.settings.teacher import (
    ConfidentTeacherSettings,
    ConsistencySettings,
    TeacherSettings,
)
from semi_nnunet.training.trainer import SemiTrainer, Term


def ema_decay_at(step: int, decay: float) -> float:
    """Return min(1 - 1 / (step + 1), decay): step 0 copies, the first steps average evenly.

    >>> [round(ema_decay_at(step, 0.99), 2) for step in (0, 1, 3, 1000)]
    [0.0, 0.5, 0.75, 0.99]
    """
    return min(1.0 - 1.0 / (step + 1), decay)


class EmaTeacher(nn.Module):
    """A copy of the student that receives no gradient and is always in evaluation mode.

    Parameters are averaged. Buffers (nnU-Net's InstanceNorm has none) are copied, so that a
    batch-normalised teacher uses the student's statistics.

    Args:
        student: the bare network, neither compiled nor wrapped for DDP.
    """

    def __init__(self, student: nn.Module):
        super().__init__()
        self.module = copy.deepcopy(student).requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> EmaTeacher:
        return super().train(False)

    @torch.no_grad()
    def update(self, student: nn.Module, step: int, decay: float) -> None:
        """Set teacher = a * teacher + (1 - a) * student, a = ema_decay_at(step, decay)."""
        a = ema_decay_at(step, decay)
        averages: list[torch.Tensor] = list(self.module.parameters())
        weights: list[torch.Tensor] = list(student.parameters())
        if a == 0.0:
            torch._foreach_copy_(averages, weights)
        else:
            torch._foreach_lerp_(averages, weights, 1.0 - a)
        for copied, buffer in zip(self.module.buffers(), student.buffers(), strict=True):
            copied.copy_(buffer)


class TeacherTrainer(SemiTrainer, is_method=False):
    """A student, and a teacher whose weights are a moving average of the student's.

    The teacher is validated, saved and deployed.
    """

    settings_class = TeacherSettings

    def companions(self) -> dict[str, nn.Module]:
        return {"teacher": EmaTeacher(self.bare_network)}

    def copy_student(self) -> None:
        self.companion("teacher").update(self.bare_network, step=0, decay=0.0)

    @property
    def teacher(self) -> nn.Module:
        """The averaged network."""
        network: nn.Module = self.companion("teacher").module
        return network

    def teacher_probs(self, x: torch.Tensor) -> torch.Tensor:
        """Return the teacher's probabilities (B, classes or regions, *spatial), no gradient."""
        return self.probs(self.predict_with(self.teacher, x))

    def after_optimizer_step(self, step: int) -> None:
        settings = self.settings
        ramped_up = step >= settings.ramp_up_steps
        later = settings.ema_decay_after_ramp_up
        decay = later if later is not None and ramped_up else settings.ema_decay
        self.companion("teacher").update(
            self.bare_network, step + self.initial_weights.steps_before, decay
        )

    def prediction_network(self) -> nn.Module:
        return self.teacher


class ConsistentTeacherTrainer(TeacherTrainer, is_method=False):
    """A student that must agree with the probabilities of the teacher."""

    settings_class = ConsistencySettings

    def consistency_term(
        self, unlabelled: UnlabelledBatch, target: torch.Tensor, mask: torch.Tensor
    ) -> Term:
        """Compare the student on strong views, after CutMix, with the target mixed in the same way.

        Args:
            target: probabilities of the teacher (B, C, *spatial).
            mask: bool (B, 1, *spatial), voxels in which the student must agree.
        """
        mix = self.cutmix(target)
        prediction = self.probs(self.predict(mix(unlabelled.x_strong)))
        consistency = self.consistency(prediction, mix(target), mix(mask))
        return Term("consistency", consistency, self.settings.consistency_weight)

    def consistency(
        self, prediction: torch.Tensor, target: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Compute the MSE of probabilities + consistency_dice x (1 - Dice) on the mask.

        The papers use the MSE only. With it, as with the Kullback-Leibler divergence, the
        foreground that the teacher saw in unlabelled hearts shrank to half of the truth
        (docs/results/journal.md): both average over voxels, mostly of the background. The Dice
        of a class is weighted by how sure the teacher is of the class.
        """
        difference = probability_mse(prediction, target, mask)
        if not self.settings.consistency_dice:
            return difference
        dice = probability_dice_loss(prediction, target, mask, self.exclusive)
        return difference + self.settings.consistency_dice * dice


class ConfidentTeacherTrainer(TeacherTrainer, is_method=False):
    """A student that learns from the confident predictions of the teacher as labels."""

    settings_class = ConfidentTeacherSettings

    def companions(self) -> dict[str, nn.Module]:
        settings, classes = self.settings, self.label_manager.num_segmentation_heads
        thresholds = ClassThresholds(
            classes, settings.threshold, settings.class_wise_threshold, settings.threshold_decay
        )
        return {**super().companions(), "thresholds": thresholds}

    def confident_labels(self, unlabelled: UnlabelledBatch) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the teacher's one-hot labels of the weak view, and a mask of confident voxels."""
        probs = self.teacher_probs(unlabelled.x_weak)
        confident = self.companion("thresholds")(probs, unlabelled.mask, self.exclusive)
        self.note_pseudo_labels(probs, unlabelled.mask, confident)
        return hard_pseudo_label(probs, self.exclusive), confident
