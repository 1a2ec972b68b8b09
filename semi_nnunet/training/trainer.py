"""What a method builds on: terms of a loss, companions of the student, unlabelled batches.

A method subclasses :class:`SemiTrainer`, names its companions (a teacher, say) and yields its loss
terms; see ``semi_nnunet/methods/mean_teacher.py``. The trainer brings the batches, weighs and
back-propagates the terms, and validates, saves and deploys the network that the method names.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from semi_nnunet.augment.mixing import BoxMix, sample_box_mix
from semi_nnunet.augment.views import AppearanceView
from semi_nnunet.core.class_frequencies import FrequencyWeights
from semi_nnunet.core.losses import DiceAndVoxelLoss
from semi_nnunet.core.pseudo_labels import hard_pseudo_label, is_foreground
from semi_nnunet.data.file_bytes import require_whole
from semi_nnunet.data.layout import unlabelled_folder
from semi_nnunet.data.loading import (
    LabelledBatch,
    StepLoader,
    UnlabelledBatch,
    UnlabelledSampling,
)
from semi_nnunet.data.stage_predictions import (
    never_validated,
    predicts_unlabelled,
    require_predictions,
)
from semi_nnunet.data.streams import cases_of_loader, unlabelled_like
from semi_nnunet.data.unlabelled import UnlabelledDataset, foreground_prior
from semi_nnunet.evaluation.partial_summary import leave_out_unknown
from semi_nnunet.training.batches import Batches, DeviceBatches, cases_of
from semi_nnunet.training.cascade import NextStages
from semi_nnunet.training.checkpoints import LATEST
from semi_nnunet.training.companions import CompanionTrainer, full_resolution
from semi_nnunet.training.filtering import ImageFilter
from semi_nnunet.training.foreground import ForegroundLocator, classes_of
from semi_nnunet.training.gradient_balance import GradientBalance, GradientLimit
from semi_nnunet.training.loader_time import LoaderTime
from semi_nnunet.training.losses import loss_of_outputs
from semi_nnunet.training.precision import compute_dtype
from semi_nnunet.training.prediction import CasePredictor
from semi_nnunet.training.reliability import ReliabilityMeter, UnlabelledWeight, collapse_warning
from semi_nnunet.training.step import Cases, OptimizerStep, Term
from semi_nnunet.training.unlabelled_pool import UnlabelledPool
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.seeds import derived_seed

__all__ = ["FREQUENCIES", "SemiTrainer", "Term"]
FREQUENCIES = "class_frequencies"  # the companion that counts the voxels of the classes


class SemiTrainer(CompanionTrainer, is_method=False):
    """An nnU-Net trainer whose loss is the sum of the terms that a method yields.

    A method overrides :meth:`terms`, :meth:`after_optimizer_step`, and, of
    :class:`~semi_nnunet.training.companions.CompanionTrainer`, ``companions`` and
    ``prediction_network``, and sets ``settings_class``.
    """

    uses_unlabelled: ClassVar[bool] = True
    segments: ClassVar[bool] = True  # False: its network predicts no classes
    taught_by: ClassVar[str | None] = None  # the trainer whose trained network it needs by default

    # ---------------------------------------------------------------- what a method says

    @abstractmethod
    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        """The terms of the loss; each is back-propagated and freed before the next is asked for."""
        raise NotImplementedError

    def after_optimizer_step(self, step: int) -> None:
        """Called after the student's weights changed in optimizer step ``step`` (from 0)."""

    def diagnose(self, labelled: LabelledBatch) -> None:
        """Called after the first step of an epoch, to note values that no training follows."""

    # ---------------------------------------------------------------- what a method may use

    def supervised(
        self, labelled: LabelledBatch, network: nn.Module | None = None, name: str = "supervised"
    ) -> Term:
        """nnU-Net's loss of the student, or of another network, on the labelled patches.

        With fold "all" the reliability of the network is also that of the student's predictions
        here.
        """
        self._note_foreground("labelled", *self.annotation(labelled.target))
        outputs, annotated = self.outputs(labelled.x, network), labelled.annotated
        if network is None:
            logits, target = full_resolution(outputs), full_resolution(labelled.target)
            ignored = self.label_manager.ignore_label
            self.reliability.note_labelled(logits, target, self.exclusive, ignored, annotated)
        loss = loss_of_outputs(self.loss, outputs, labelled.target, annotated)
        return Term(name, loss, ramped=False)

    def cutmix(self, like: torch.Tensor) -> BoxMix:
        """A random CutMix for tensors with the batch and patch size of ``like``."""
        return sample_box_mix(like, self.settings.cutmix_edge, self.settings.cutmix_probability)

    def pseudo_label_loss(
        self,
        logits: torch.Tensor,
        target: torch.Tensor,
        mask: torch.Tensor,
        class_weights: torch.Tensor | None = None,
        annotated: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """nnU-Net's Dice + cross-entropy against ``target`` on the voxels of ``mask``.

        The Dice is that of the batch: of a class that one patch does not show, the patch says
        little. Where the target is of labelled patches, ``annotated`` is theirs. See
        :meth:`semi_nnunet.core.losses.DiceAndVoxelLoss.masked`.
        """
        return self.masked_loss.masked(logits, target, mask, class_weights, annotated)

    def note_pseudo_labels(
        self, probs: torch.Tensor, mask: torch.Tensor, trusted: torch.Tensor | None = None
    ) -> None:
        """Log which fraction of the voxels in ``mask`` is foreground, and which is trusted."""
        counts = self.unlabelled_weight.at(self.step) > 0  # before, they are not followed either
        if self.settings.class_weights_from == "pseudo_labels" and counts:
            self.companion(FREQUENCIES).count(hard_pseudo_label(probs, self.exclusive), mask)
        voxels = self._note_foreground("pseudo_label", probs, mask)
        if trusted is not None:
            self.records.add("mask_ratio", trusted.sum() / voxels)

    def _note_foreground(self, kind: str, probs: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Log the fraction of foreground in the mask; returns how many voxels that has."""
        voxels = mask.sum().clamp_min(1)
        foreground = is_foreground(probs, self.exclusive) & mask
        self.records.add(f"foreground/{kind}", foreground.sum() / voxels)
        return voxels

    # ---------------------------------------------------------------- set-up

    def _apply_settings(self) -> None:
        super()._apply_settings()
        channels = len(self.dataset_json.get("channel_names") or self.dataset_json["modality"])
        outside = [bool(use) for use in self.configuration_manager.use_mask_for_norm]
        outside = outside if len(outside) == channels else [False] * channels
        settings = self.settings
        strength = settings.appearance_strength
        self.strong_view = AppearanceView(strength, settings.appearance_probability, outside)
        self.labelled_view = AppearanceView(strength, settings.labelled_appearance, outside)
        self.loader_time = LoaderTime(settings.augmentation, self.device, self.say)
        self.unlabelled_weight = UnlabelledWeight(settings)
        all_are_trained_on = self.uses_unlabelled and self.fold == "all"
        self.reliability = ReliabilityMeter(
            self.unlabelled_weight, all_are_trained_on, self.ranks, self.say
        )
        self.within_epoch.parts["labelled"] = self.reliability

    def every_companion(self) -> dict[str, nn.Module]:
        companions = super().every_companion()
        if self.settings.class_weights_from == "given":
            return companions
        classes = self.label_manager.num_segmentation_heads
        return {**companions, FREQUENCIES: FrequencyWeights(classes)}

    def class_weights(self) -> Any:
        given = super().class_weights()
        if self.settings.class_weights_from == "given":
            return given
        if given is not None:
            raise UserError(
                f"class_weights {given} are given, and class_weights_from asks for others, got "
                f"{self.settings.class_weights_from!r}",
                fix="set one of them in plans['semi']",
            )
        return self.companion(FREQUENCIES)

    def _build_loss(self) -> nn.Module:
        weights = self.class_weights()
        summed = self.ranks.summing
        loss = DiceAndVoxelLoss(
            not self.exclusive, batch_dice=True, class_weights=weights, sum_over_ranks=summed
        )
        self.masked_loss = loss.to(self.device)
        return super()._build_loss()

    def initialize(self) -> None:
        super().initialize()
        self.on_device = DeviceBatches(
            self.device, self.labelled_view, self.strong_view, self.annotated_classes
        )
        self.optimizer_step = OptimizerStep(
            networks := self.trained_networks(),
            self.optimizer,
            self.grad_scaler,
            self.settings.gradient_clip,
            compute_dtype(self.settings.mixed_precision, self.device),
            self.unlabelled_weight,
            self.records,
            self.non_finite,
            GradientBalance(
                networks, GradientLimit.of(self.settings), self.records, self.ranks.count
            ),
        )

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        if self.uses_unlabelled:
            self.pool.check()
        super().on_train_start()

    # ---------------------------------------------------------------- data

    def get_dataloaders(self) -> tuple[StepLoader, StepLoader]:
        training, validation = super().get_dataloaders()
        self.on_device.augmentations = training.dataset.augmentations
        return training, validation

    def streams(self, labelled: Any) -> dict[str, Any]:
        if not self.uses_unlabelled:
            return super().streams(labelled)
        return {**super().streams(labelled), "unlabelled": self._unlabelled_stream(labelled)}

    def _unlabelled_stream(self, labelled: Any) -> UnlabelledSampling:
        settings, known = self.settings, cases_of_loader(labelled)
        oversampling = settings.unlabelled_foreground_oversampling
        prior = foreground_prior(known, known.identifiers) if oversampling else {}
        previous, cases = (
            self.folder_with_segs_from_previous_stage,
            self.training_unlabelled_cases(),
        )
        require_predictions(previous, cases, self.commands.train_previous_stage)
        dataset = UnlabelledDataset(self.pool.folder, cases, prior, previous, self.pool.located)
        batch_size = self.ranks.share_of(settings.unlabelled_batch_size)
        if batch_size < settings.smallest_unlabelled_batch:
            raise UserError(
                f"{type(self).__name__} needs at least {settings.smallest_unlabelled_batch} "
                f"unlabelled patches on each GPU, to mix one into another, got "
                f"unlabelled_batch_size {settings.unlabelled_batch_size} for all",
                fix="raise it in plans['semi']",
            )
        return unlabelled_like(
            labelled,
            dataset,
            batch_size,
            self.label_manager,
            oversampling,
            settings.unlabelled_rotation_and_scaling,
        )

    @cached_property
    def pool(self) -> UnlabelledPool:
        """The unlabelled images of this configuration."""
        base = Path(self.preprocessed_dataset_folder_base)
        folder, results = self.configuration_manager.data_identifier, Path(self.output_folder)
        say, classes = self.say, classes_of(self.label_manager)
        return UnlabelledPool(
            unlabelled_folder(base, folder),
            self.commands.preprocess,
            ImageFilter(self.settings, results, self, say),
            ForegroundLocator(self.settings, results, self, classes, say),
        )

    def unlabelled_cases(self) -> list[str]:
        """The finished unlabelled cases, but for those of patients whom this fold validates on.

        Raises:
            UserError: there are none.
        """
        labelled = self.labelled_identifiers()
        return self.pool.of_fold(labelled, self.fold, lambda: self.do_split()[1], self.patient_of)

    def training_unlabelled_cases(self) -> list[str]:
        """The :meth:`unlabelled_cases` to train on: all, or what the last filtering kept."""
        return self.pool.trained_on(self.unlabelled_cases())

    def current_cases(self) -> dict[str, list[str]]:
        unlabelled = self.training_unlabelled_cases() if self.uses_unlabelled else []
        return {**super().current_cases(), "unlabelled": unlabelled}

    @property
    def predictor(self) -> CasePredictor:
        """What predicts whole preprocessed cases."""
        return CasePredictor(
            self.plans_manager,
            self.configuration_manager,
            self.dataset_json,
            type(self).__name__,
            self.device,
            self.inference_allowed_mirroring_axes,
            self.folder_with_segs_from_previous_stage,
            self.ranks,
        )

    # ---------------------------------------------------------------- training

    def train_step(self, batch: Batches) -> dict[str, float]:
        """One optimizer step: the terms of each batch are back-propagated, then one update."""
        step = self.step
        torch.manual_seed(derived_seed(self.settings.seed, "step", step, self.ranks.number))
        self.optimizer.zero_grad(set_to_none=True)
        for part in batch:
            labelled, unlabelled = self.on_device(part)
            if self.settings.class_weights_from != "given":
                known = self.annotation(labelled.target)
                self.companion(FREQUENCIES).count(*known, labelled.annotated)
            terms, cases = self.terms(labelled, unlabelled), Cases(labelled.keys, unlabelled.keys)
            share, is_last = 1.0 / len(batch), part is batch[-1]
            self.optimizer_step.back_propagate(terms, step, cases, self.device, share, is_last)
        self.optimizer_step.update(step, cases_of(batch))
        self.after_optimizer_step(step)
        if self.step_in_epoch == 0:
            self.diagnose(labelled)
        self.step_in_epoch += 1
        if self.preemption.is_asked(self.device):
            self.non_finite.look(now=True)
            latest, done = Path(self.output_folder) / LATEST, self.within_epoch
            self.save_checkpoint(str(latest), self.current_epoch, **done.state(self.step_in_epoch))
            self.preemption.leave(self.say)
        return {}  # the losses stay on the device until the end of the epoch

    def on_epoch_start(self) -> None:
        super().on_epoch_start()
        if self.uses_unlabelled and self.step_in_epoch == 0:  # not within an epoch that goes on
            epoch, cases = self.current_epoch, self.unlabelled_cases
            if self.pool.begin_epoch(epoch, cases, self.predictor):
                self.restart_loaders()

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        super().on_train_epoch_end(train_outputs)
        self.loader_time.tell_once(self.dataloader_train)
        values = self.run_log.epoch_values
        labelled, pseudo = values.get("foreground/labelled"), values.get("foreground/pseudo_label")
        warning = collapse_warning(pseudo, labelled)
        if warning and self.unlabelled_weight.reliability > 0:
            self.print_to_log_file(warning)

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        super().on_validation_epoch_end(val_outputs)
        if self.uses_unlabelled:
            trust = self.reliability.after_validation(val_outputs, self.step)
            self.run_log.epoch_values["trust"] = trust

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        base, results = Path(self.preprocessed_dataset_folder_base), Path(self.output_folder_base)
        following = NextStages(self.predictor, base, results, self.say)
        fold, validated = Path(self.output_folder), len(self.do_split()[1])
        timed = self.run_log.validation(fold, validated, writes=self.ranks.number == 0)
        with self.as_network(self.prediction_network()), following.prepared() as stages, timed:
            super().perform_actual_validation(save_probabilities)
            self.ranks.on_first(self._leave_out_unknown)
        for path in (Path(self.output_folder) / "validation").glob("*"):  # nnU-Net does not look
            require_whole(path)
        if not (stages and predicts_unlabelled(self.fold)):
            return
        predict = partial(following.predict, self.prediction_network())
        predict(base.joinpath, stages, never_validated(base, self.fold))
        if self.uses_unlabelled:  # all, as there are other folds of the next stage
            cases = self.pool.all(self.labelled_identifiers())
            predict(partial(unlabelled_folder, base), stages, cases)
        self.ranks.barrier()

    def _leave_out_unknown(self) -> None:
        """Correct nnU-Net's summary of the validation, which takes what is unknown for absent."""
        if self.annotated_classes is None:
            return
        path, ending = Path(self.output_folder) / "validation", self.dataset_json["file_ending"]
        found = leave_out_unknown(path / "summary.json", self.annotated_classes, ending)
        for key, means in found["mean"].items():
            self.logger.log_summary(f"final_val/class_{key}_dice", means["Dice"])
        mean = found["foreground_mean"]["Dice"]
        self.logger.log_summary("final_val/foreground_dice", mean)
        self.say(f"Mean Validation Dice of the classes that each case annotates: {mean}")

    # ---------------------------------------------------------------- checkpoints

    def checkpoint_content(self, next_epoch: int) -> dict[str, Any]:
        content = super().checkpoint_content(next_epoch)
        content["semi"] |= self.pool.state()
        content["semi"]["trust"] = self.unlabelled_weight.reliability
        return content

    def restore(self, checkpoint: dict[str, Any]) -> None:
        semi, weight = checkpoint["semi"], self.unlabelled_weight
        weight.reliability = semi.get("trust", weight.reliability)
        self.pool.restore(semi, reads_positions=self.resuming)
        super().restore(checkpoint)
