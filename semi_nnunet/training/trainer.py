"""The trainer that methods build on: loss terms, companions and unlabelled batches.

A method subclasses :class:`SemiTrainer`, defines its companions (such as a teacher) and yields its
loss terms; see ``semi_nnunet/methods/mean_teacher.py``. The trainer provides the batches, weighs
and back-propagates the terms, and validates, saves and deploys the network that the method chooses.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from semi_nnunet.augment.intensity import add_clamped_noise
from semi_nnunet.augment.mixing import BoxMix, sample_box_mix
from semi_nnunet.augment.views import AppearanceView
from semi_nnunet.core.class_weights import FrequencyWeights
from semi_nnunet.core.gated_crf import gated_crf_loss
from semi_nnunet.core.losses import DiceAndVoxelLoss
from semi_nnunet.core.pseudo_labels import hard_pseudo_label, is_foreground
from semi_nnunet.evaluation.tables import drop_unannotated
from semi_nnunet.loading.stage_predictions import (
    list_never_validated,
    predicts_unlabelled,
    read_images,
    require_predictions,
)
from semi_nnunet.loading.steps import (
    LabelledBatch,
    StepLoader,
    UnlabelledBatch,
    UnlabelledDataLoader,
    get_loader_dataset,
    make_unlabelled_loader,
)
from semi_nnunet.loading.unlabelled import (
    IgnoredVoxels,
    UnlabelledDataset,
    compute_foreground_prior,
)
from semi_nnunet.planning.teaching import find_ignored_labels
from semi_nnunet.preprocessing.case_facts import list_partly_labelled
from semi_nnunet.preprocessing.manifest import Manifest
from semi_nnunet.raw.description import get_channel_names
from semi_nnunet.raw.layout import GROUND_TRUTH, STAGE_IMAGES, SUMMARY_JSON, get_unlabelled_folder
from semi_nnunet.training.batches import Batches, DeviceBatches, list_batch_cases
from semi_nnunet.training.cases import UnlabelledPool, UnlabelledSelection
from semi_nnunet.training.checkpoints import LATEST
from semi_nnunet.training.companions import CompanionTrainer, select_full_resolution
from semi_nnunet.training.filtering import ImageFilter
from semi_nnunet.training.foreground import ForegroundLocator, list_sampled_classes
from semi_nnunet.training.gradients import GradientBalance, GradientLimit
from semi_nnunet.training.initial_weights import IN_FOLD
from semi_nnunet.training.loaders import LoaderWaitLog
from semi_nnunet.training.losses import compute_supervised_loss
from semi_nnunet.training.precision import compute_dtype
from semi_nnunet.training.prediction import CasePredictor, NextStages
from semi_nnunet.training.reliability import ReliabilityMeter, UnlabelledWeight, describe_collapse
from semi_nnunet.training.step import BatchCases, OptimizerStep, Term
from semi_nnunet.util.errors import UserError, raise_if_any
from semi_nnunet.util.files import write_json
from semi_nnunet.util.seeds import derived_seed
from semi_nnunet.verify.file_bytes import find_incomplete_images, require_complete_image
from semi_nnunet.verify.twins import join_known_twins

__all__ = ["FREQUENCIES", "SemiTrainer", "Term"]
FREQUENCIES = "class_frequencies"  # the companion that counts the voxels of the classes
CRF_RAMP = 0.2  # share of the steps in which the weight of the CRF loss grows


class SemiTrainer(CompanionTrainer, is_method=False):
    """An nnU-Net trainer whose loss is the sum of the terms that a method yields.

    A method overrides :meth:`terms`, :meth:`after_optimizer_step`, and, of
    :class:`~semi_nnunet.training.companions.CompanionTrainer`, ``companions`` and
    ``prediction_network``, and sets ``settings_class``.
    """

    uses_unlabelled: ClassVar[bool] = True
    segments: ClassVar[bool] = True  # False: the network predicts no classes
    taught_by: ClassVar[str | None] = None  # the trainer whose trained network it needs by default

    # ---------------------------------------------------------------- defined by a method

    @abstractmethod
    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        """Yield the loss terms; each is back-propagated and freed before the next is computed."""
        raise NotImplementedError

    def after_optimizer_step(self, step: int) -> None:
        """Update what follows the student, such as a teacher, after step ``step`` (from 0)."""

    @property
    def steps_in_cycle(self) -> int:
        """Number of steps after which the same terms come again; a benchmark averages them."""
        return 1

    def diagnose(self, labelled: LabelledBatch) -> None:
        """Record values that are only informative, after the first step of an epoch."""

    # ---------------------------------------------------------------- used by a method

    def supervised(
        self, labelled: LabelledBatch, network: nn.Module | None = None, name: str = "supervised"
    ) -> Term:
        """Compute nnU-Net's loss of the student, or of another network, on labelled patches.

        With ``crf_weight`` the gated CRF loss is added.

        With fold "all" the student's predictions also determine the reliability of the network.
        Pasted boxes of unlabelled patches count in the loss only.
        """
        pasted = labelled.pasted
        onehot, mask = self.annotation(labelled.target)
        self._record_foreground("labelled", onehot, mask if pasted is None else mask & ~pasted)
        outputs, annotated = self.outputs(labelled.x, network), labelled.annotated
        if network is None:
            self.reliability_meter.count_labelled(
                select_full_resolution(outputs),
                select_full_resolution(labelled.target),
                self.exclusive,
                self.label_manager.ignore_label,
                annotated,
                None if pasted is None else ~pasted,
            )
        loss = compute_supervised_loss(self.loss, outputs, labelled.target, annotated)
        if self.settings.crf_weight:
            probs = self.probs(select_full_resolution(outputs))
            ramp = min(1.0, self.step / (CRF_RAMP * self.settings.total_steps))
            weight = self.settings.crf_weight * ramp
            loss = loss + weight * gated_crf_loss(probs, self.image_of(labelled.x), self.exclusive)
        return Term(name, loss, ramped=False, reads_unlabelled=pasted is not None)

    def image_of(self, x: torch.Tensor) -> torch.Tensor:
        """Return the image's channels of ``x``, without the labels of a cascade's first stage."""
        return self.strong_view.split(x)[0]

    def add_teacher_noise(self, x: torch.Tensor) -> torch.Tensor:
        """Add the noise of ``teacher_noise`` to the image's channels of ``x``."""
        image, rest = self.strong_view.split(x)
        return torch.cat([add_clamped_noise(image, self.settings.teacher_noise), rest], 1)

    def cutmix(self, x: torch.Tensor) -> BoxMix:
        """Draw a random CutMix for tensors with the batch and patch size of ``x``."""
        return sample_box_mix(x, self.settings.cutmix_edge, self.settings.cutmix_probability)

    def pseudo_label_loss(
        self,
        logits: torch.Tensor,
        target: torch.Tensor,
        mask: torch.Tensor,
        class_weights: torch.Tensor | None = None,
        annotated: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compute nnU-Net's Dice + cross-entropy against pseudo labels on the voxels of a mask.

        The Dice is that of the whole batch: a patch without a class has little information on it.
        See :meth:`semi_nnunet.core.losses.DiceAndVoxelLoss.masked`.

        Args:
            logits: (B, classes or regions, *spatial).
            target: one-hot or soft labels of the same shape.
            mask: bool (B, 1, *spatial).
            class_weights: (classes,), or None for those of the settings.
            annotated: bool (B, classes or regions), if the target belongs to labelled patches.
        """
        return self.masked_loss.masked(logits, target, mask, class_weights, annotated)

    def note_pseudo_labels(
        self, probs: torch.Tensor, mask: torch.Tensor, trusted: torch.Tensor | None = None
    ) -> None:
        """Record the fractions of foreground and of trusted voxels among those of the mask.

        Args:
            probs: probabilities of the pseudo labels (B, C, *spatial).
            mask: bool (B, 1, *spatial), voxels inside the image.
            trusted: bool, voxels whose pseudo labels are used.
        """
        has_weight = self.unlabelled_weight.at(self.step) > 0
        if self.settings.class_weights_from == "pseudo_labels" and has_weight:
            self.companion(FREQUENCIES).count(hard_pseudo_label(probs, self.exclusive), mask)
        voxels = self._record_foreground("pseudo_label", probs, mask)
        if trusted is not None:
            self.records.add("mask_ratio", trusted.sum() / voxels)

    def _record_foreground(
        self, source: str, probs: torch.Tensor, mask: torch.Tensor
    ) -> torch.Tensor:
        """Record the fraction of foreground in the mask; return the mask's number of voxels."""
        voxels = mask.sum().clamp_min(1)
        foreground = is_foreground(probs, self.exclusive) & mask
        self.records.add(f"foreground/{source}", foreground.sum() / voxels)
        return voxels

    # ---------------------------------------------------------------- set-up

    def _apply_settings(self) -> None:
        super()._apply_settings()
        channels = len(get_channel_names(self.dataset_json))
        outside = [bool(use) for use in self.configuration_manager.use_mask_for_norm]
        outside = outside if len(outside) == channels else [False] * channels
        settings = self.settings
        strength = settings.appearance_strength
        self.strong_view = AppearanceView(strength, settings.appearance_probability, outside)
        self.labelled_view = AppearanceView(strength, settings.labelled_appearance, outside)
        self.loader_wait = LoaderWaitLog(settings.augmentation, self.device, self.say)
        self.unlabelled_weight = UnlabelledWeight(settings)
        trains_on_validated = self.uses_unlabelled and self.fold == "all"
        self.reliability_meter = ReliabilityMeter(
            self.unlabelled_weight, trains_on_validated, self.ranks, self.say
        )
        self.epoch_progress.states["labelled"] = self.reliability_meter

    def build_all_companions(self) -> dict[str, nn.Module]:
        companions = super().build_all_companions()
        if self.settings.class_weights_from == "given":
            return companions
        classes = self.label_manager.num_segmentation_heads
        return {**companions, FREQUENCIES: FrequencyWeights(classes)}

    def class_weights(self) -> Any:
        weights = super().class_weights()
        if self.settings.class_weights_from == "given":
            return weights
        if weights is not None:
            raise UserError(
                f"class_weights are given ({weights}), but class_weights_from asks for others, got "
                f"{self.settings.class_weights_from!r}",
                fix="set one of them in plans['semi']",
            )
        return self.companion(FREQUENCIES)

    def _build_loss(self) -> nn.Module:
        loss = DiceAndVoxelLoss(
            not self.exclusive, batch_dice=True, class_weights=self.class_weights()
        )
        self.masked_loss = loss.to(self.device)
        return super()._build_loss()

    def initialize(self) -> None:
        super().initialize()
        self.on_device = DeviceBatches(
            self.device, self.labelled_view, self.strong_view, self.annotated_classes
        )
        networks, limit = self.trained_networks(), GradientLimit.from_settings(self.settings)
        self.optimizer_step = OptimizerStep(
            networks,
            self.optimizer,
            self.grad_scaler,
            self.settings.gradient_clip,
            compute_dtype(self.settings.mixed_precision, self.device),
            self.unlabelled_weight,
            self.records,
            self.non_finite,
            GradientBalance(networks, limit, self.records, self.ranks.world_size),
            self.steps_in_cycle,
        )

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        if self.segments:
            if self.uses_unlabelled:
                self.pool.check()
            self._require_annotated_voxels()
            self._require_complete_references()
        super().on_train_start()

    # ---------------------------------------------------------------- data

    def get_dataloaders(self) -> tuple[StepLoader, StepLoader]:
        training, validation = super().get_dataloaders()
        self.on_device.augmentations = training.dataset.augmentations
        if self.uses_unlabelled and self.pool.ignored:
            self.on_device.unlabelled_value = self.pool.ignored.label
        return training, validation

    def streams(self, labelled: Any) -> dict[str, Any]:
        if not self.uses_unlabelled:
            return super().streams(labelled)
        return {**super().streams(labelled), "unlabelled": self._unlabelled_stream(labelled)}

    def _unlabelled_stream(self, labelled: Any) -> UnlabelledDataLoader:
        settings, labelled_data = self.settings, get_loader_dataset(labelled)
        oversampling = settings.unlabelled_foreground_oversampling
        prior = (
            compute_foreground_prior(labelled_data, labelled_data.identifiers)
            if oversampling
            else {}
        )
        previous = self.folder_with_segs_from_previous_stage
        cases = self.unlabelled_selection().trained_on
        command = self.commands.train_previous_stage
        require_predictions(previous, cases, self.pool.folder, command)
        dataset = UnlabelledDataset(
            self.pool.folder, cases, prior, previous, self.pool.located, self.pool.ignored
        )
        batch_size = self.ranks.shard_size(settings.unlabelled_batch_size)
        if batch_size < settings.smallest_unlabelled_batch:
            raise UserError(
                f"{type(self).__name__} needs at least {settings.smallest_unlabelled_batch} "
                f"unlabelled patches on each GPU, to mix one into another, got "
                f"unlabelled_batch_size {settings.unlabelled_batch_size} for all",
                fix="raise it in plans['semi']",
            )
        return make_unlabelled_loader(
            labelled,
            dataset,
            batch_size,
            self.label_manager,
            oversampling,
            settings.unlabelled_rotation_and_scaling,
        )

    @cached_property
    def pool(self) -> UnlabelledPool:
        """The unlabelled cases of this configuration."""
        base, results = Path(self.preprocessed_dataset_folder_base), Path(self.output_folder)
        classes = list_sampled_classes(self.label_manager)
        return UnlabelledPool(
            get_unlabelled_folder(base, self.configuration_manager.data_identifier),
            self.commands.preprocess,
            ImageFilter(self.settings, results, self, self.say),
            ForegroundLocator(self.settings, results, self, classes, self.say),
            self._find_ignored_voxels(),
        )

    def _find_ignored_voxels(self) -> IgnoredVoxels | None:
        """Return the training cases whose ignored voxels count as unlabelled; None without any."""
        label, folder = self.label_manager.ignore_label, Path(self.preprocessed_dataset_folder)
        if label is None or not self.settings.unlabelled_from_ignored:
            return None
        entries, training = Manifest(folder).present(), self.do_split()[0]
        cases = list_partly_labelled({case: entries[case] for case in training if case in entries})
        return IgnoredVoxels(folder, tuple(cases), label) if cases else None

    def unlabelled_selection(self) -> UnlabelledSelection:
        """Return the unlabelled cases that this training sees.

        Raises:
            UserError: there are none.
        """
        folder = Path(self.preprocessed_dataset_folder_base)
        group_of = join_known_twins(self.patient_of, folder)
        return self.pool.select(
            self.labelled_identifiers(), self.fold, lambda: self.do_split()[1], group_of
        )

    def unlabelled_cases(self) -> list[str]:
        """Return the unlabelled cases that the fold may train on, before filtering."""
        return self.unlabelled_selection().in_fold

    def batch_sizes(self) -> dict[str, int]:
        sizes = super().batch_sizes()
        if self.uses_unlabelled:
            sizes["unlabelled"] = self.settings.unlabelled_batch_size
        return sizes

    def current_cases(self) -> dict[str, list[str]]:
        unlabelled = self.unlabelled_selection().trained_on if self.uses_unlabelled else []
        cases = super().current_cases()
        labelled = {*cases["labelled"]}  # those with ignored voxels
        return {**cases, "unlabelled": [case for case in unlabelled if case not in labelled]}

    def case_folders(self) -> dict[str, str]:
        return {**super().case_folders(), "unlabelled": str(self.pool.folder)}

    @property
    def predictor(self) -> CasePredictor:
        """The predictor of whole preprocessed cases."""
        return CasePredictor(
            self.plans_manager,
            self.configuration_manager,
            self.dataset_json,
            type(self).__name__,
            self.device,
            self.inference_allowed_mirroring_axes,
            self.folder_with_segs_from_previous_stage,
            self.ranks,
            self.pool.ignored if self.uses_unlabelled else None,
        )

    # ---------------------------------------------------------------- training

    def train_step(self, batch: Batches) -> dict[str, float]:
        """Do an optimizer step: back-propagate the terms of each batch, then update once."""
        step = self.step
        torch.manual_seed(derived_seed(self.settings.seed, "step", step, self.ranks.rank))
        self.optimizer.zero_grad(set_to_none=True)
        for loaded in batch:
            labelled, unlabelled = self.on_device(loaded)
            if self.settings.class_weights_from != "given":
                onehot, mask = self.annotation(labelled.target)
                self.companion(FREQUENCIES).count(onehot, mask, labelled.annotated)
            self.optimizer_step.back_propagate(
                self.terms(labelled, unlabelled),
                step,
                BatchCases(labelled.keys, unlabelled.keys),
                self.device,
                share=1.0 / len(batch),
                is_last_batch=loaded is batch[-1],
            )
        self.optimizer_step.update(step, list_batch_cases(batch))
        self.after_optimizer_step(step)
        if self.step_in_epoch == 0:
            self.diagnose(labelled)
        self.step_in_epoch += 1
        if self.preemption.is_asked(self.device):
            self.non_finite.check(now=True)
            latest = str(Path(self.output_folder) / LATEST)
            progress = self.epoch_progress.state(self.step_in_epoch)
            self.save_checkpoint(latest, self.current_epoch, **progress)
            self.preemption.leave(self.say)
        return {}  # the losses stay on the device until the end of the epoch

    def on_epoch_start(self) -> None:
        super().on_epoch_start()
        is_new = self.step_in_epoch == 0  # not if an epoch is continued
        if self.uses_unlabelled and self.segments and is_new:
            epoch, select = self.current_epoch, self.unlabelled_selection
            if self.pool.begin_epoch(epoch, select, self.predictor):
                self.restart_loaders()

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        super().on_train_epoch_end(train_outputs)
        self.loader_wait.log_once(self.dataloader_train)
        values = self.run_log.epoch_values
        labelled, pseudo = values.get("foreground/labelled"), values.get("foreground/pseudo_label")
        warning = describe_collapse(pseudo, labelled)
        if warning and self.unlabelled_weight.reliability > 0:
            self.print_to_log_file(warning)

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        super().on_validation_epoch_end(val_outputs)
        if self.uses_unlabelled:
            reliability = self.reliability_meter.after_validation(val_outputs, self.step)
            self.run_log.epoch_values["trust"] = reliability

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        base, folder = Path(self.preprocessed_dataset_folder_base), Path(self.output_folder)
        next_stages = NextStages(self.predictor, base, Path(self.output_folder_base), self.say)
        timer = self.run_log.time_validation(
            folder, len(self.do_split()[1]), writes=self.ranks.rank == 0
        )
        self._require_complete_references()
        network = self.prediction_network()
        with self.as_network(network), next_stages.only_preprocessed() as stages, timer:
            super().perform_actual_validation(save_probabilities)
            self.ranks.run_on_rank_zero(self._correct_partial_summary)
        for path in (folder / "validation").glob("*"):  # nnU-Net does not check what it wrote
            require_complete_image(path)
        if stages:
            images = self._predict_for(next_stages, stages)
            self.ranks.barrier()
            if self.ranks.rank == 0:
                write_json(folder / STAGE_IMAGES, images)
        self.say(f"next: {self.commands.status}")

    def _predict_for(self, next_stages: NextStages, stages: Sequence[str]) -> dict[str, str]:
        """Predict what nnU-Net does not predict for the next stages of a cascade.

        Returns:
            Case -> short hash of its image, of all cases that this fold has predicted for them.
        """
        base, labelled = Path(self.preprocessed_dataset_folder_base), list(self.do_split()[1])
        unlabelled = dict[str, str]()
        if predicts_unlabelled(self.fold):
            predict = partial(next_stages.predict, self.prediction_network())
            never_validated = list_never_validated(base, self.fold)
            predict(base.joinpath, stages, never_validated)
            labelled += never_validated
            if self.uses_unlabelled:  # also those held out here, which other folds train on
                cases = self.unlabelled_selection().preprocessed
                predict(partial(get_unlabelled_folder, base), stages, cases)
                unlabelled = read_images(self.pool.folder, cases)
        return read_images(self.preprocessed_dataset_folder, labelled) | unlabelled

    def _require_annotated_voxels(self) -> None:
        """Raise a UserError if all voxels of all training labels are ignored."""
        entries = Manifest(Path(self.preprocessed_dataset_folder)).present()
        training = {case: entries[case] for case in self.do_split()[0] if case in entries}
        problems = find_ignored_labels(training)
        raise_if_any(f"Fold {self.fold} cannot be trained:", problems)

    def _require_complete_references(self) -> None:
        """Check the labels that nnU-Net validates on, whose missing ends it would read as zeros.

        Raises:
            UserError: lists every label that is absent or incomplete.
        """
        folder = Path(self.preprocessed_dataset_folder_base) / GROUND_TRUTH
        ending = self.dataset_json["file_ending"]
        labels = [folder / f"{case}{ending}" for case in self.do_split()[1]]
        problems = [
            replace(problem, fix=f"{self.commands.preprocess} copies it again")
            for problem in find_incomplete_images(labels)
        ]
        raise_if_any("The validation labels cannot be used:", problems)

    def _correct_partial_summary(self) -> None:
        """Correct nnU-Net's validation summary, which takes unannotated classes for absent."""
        if self.annotated_classes is None:
            return
        path, ending = Path(self.output_folder) / "validation", self.dataset_json["file_ending"]
        summary = drop_unannotated(path / SUMMARY_JSON, self.annotated_classes, ending)
        for key, means in summary["mean"].items():
            self.logger.log_summary(f"final_val/class_{key}_dice", means["Dice"])
        mean = summary["foreground_mean"]["Dice"]
        self.logger.log_summary("final_val/foreground_dice", mean)
        self.say(f"Mean Validation Dice of the classes that each case annotates: {mean}")

    # ---------------------------------------------------------------- checkpoints

    def checkpoint_content(self, next_epoch: int) -> dict[str, Any]:
        content = super().checkpoint_content(next_epoch)
        content["semi"] |= self.pool.state()
        content["semi"]["trust"] = self.unlabelled_weight.reliability
        if self.uses_unlabelled:
            content["semi"][IN_FOLD] = self.unlabelled_cases()
        return content

    def restore(self, checkpoint: dict[str, Any]) -> None:
        semi, weight = checkpoint["semi"], self.unlabelled_weight
        weight.reliability = semi.get("trust", weight.reliability)
        self.pool.restore(semi, reads_positions=self.resuming)
        super().restore(checkpoint)
