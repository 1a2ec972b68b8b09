"""What a method builds on: terms of a loss, companions of the student, unlabelled batches.

A method subclasses :class:`SemiTrainer`, names its companions (a teacher, say) and yields its loss
terms; see ``semi_nnunet/methods/mean_teacher.py``. The trainer brings the batches, weighs and
back-propagates the terms, and validates, saves and deploys the network that the method names.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import numpy as np
import torch
from torch import autocast, nn
from torch import distributed as dist

from semi_nnunet.augment.mixing import BoxMix, sample_box_mix
from semi_nnunet.augment.views import AppearanceView
from semi_nnunet.core.class_frequencies import FrequencyWeights
from semi_nnunet.core.counts import count_classes
from semi_nnunet.core.ema import EmaTeacher
from semi_nnunet.core.losses import DiceAndVoxelLoss, annotated_voxels, onehot_and_mask
from semi_nnunet.core.pseudo_labels import hard_pseudo_label, is_foreground, to_probs
from semi_nnunet.core.stochastic import statistics_kept
from semi_nnunet.data.layout import unlabelled_folder
from semi_nnunet.data.loading import LabelledBatch, UnlabelledBatch, UnlabelledSampling
from semi_nnunet.data.patients import apart_from, itself
from semi_nnunet.data.streams import unlabelled_like
from semi_nnunet.data.unlabelled import UnlabelledCases, UnlabelledDataset, foreground_prior
from semi_nnunet.networks.average import NetworkAverage
from semi_nnunet.training.cascade import (
    predict_for_next_stages,
    predicts_pool,
    prepared_stages,
    require_predictions,
)
from semi_nnunet.training.filtering import (
    check_filter,
    filter_cases,
    snapshot_epochs,
    take_snapshot,
)
from semi_nnunet.training.foreground import check_locate, locate_foreground
from semi_nnunet.training.foreground import read as read_foreground
from semi_nnunet.training.non_finite import Seen, collapse_warning
from semi_nnunet.training.optimisation import Schedule
from semi_nnunet.training.reliability import UnlabelledWeight, trust_in_unknown, trust_of_classes
from semi_nnunet.training.reproducible import ReproducibleTrainer, average_gradients
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.seeds import derived_seed

Batches = list[dict[str, dict[str, Any]]]
COUNTS = ("tp", "fp", "fn")
FREQUENCIES = "class_frequencies"  # the companion that counts the voxels of the classes


@dataclass(frozen=True)
class Term:
    """One part of the loss.

    Args:
        name: under which it is logged.
        value: a scalar, unweighted.
        weight: it is multiplied by.
        ramped: whether the weight grows with the settings' ramp-up.
    """

    name: str
    value: torch.Tensor
    weight: float = 1.0
    ramped: bool = True


class SemiTrainer(ReproducibleTrainer):
    """An nnU-Net trainer whose loss is the sum of the terms that a method yields.

    A method overrides :meth:`companions`, :meth:`terms`, :meth:`after_optimizer_step` and
    :meth:`prediction_network`, and sets ``settings_class``.
    """

    uses_unlabelled: ClassVar[bool] = True
    taught_by: ClassVar[str | None] = None  # the trainer whose trained network it needs by default

    # ---------------------------------------------------------------- what a method says

    def companions(self) -> dict[str, nn.Module]:
        """Networks beside the student, by name; they are moved, saved and restored."""
        return {}

    @abstractmethod
    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        """The terms of the loss; each is back-propagated and freed before the next is asked for."""
        raise NotImplementedError

    def after_optimizer_step(self, step: int) -> None:
        """Called after the student's weights changed in optimizer step ``step`` (from 0)."""

    def prediction_network(self) -> nn.Module:
        """The network to validate, save and deploy, or a :class:`NetworkAverage` of several.

        nnU-Net predicts from one network for each fold: the first of an average. ``semi_nnunet
        export`` makes folds of all of them, which nnU-Net averages.
        """
        return self.bare_network

    def validated_networks(self) -> dict[str, nn.Module]:
        """Networks whose validation Dice is logged beside that of the deployed one, by name."""
        return {} if self.deploys_student else {"student": self.bare_network}

    @property
    def smallest_unlabelled_batch(self) -> int:
        """How many unlabelled patches a step needs: two where they are mixed."""
        return 2 if getattr(self.settings, "cutmix_probability", 0) > 0 else 1

    # ---------------------------------------------------------------- what a method may use

    def companion(self, name: str) -> Any:
        """One of the :meth:`companions`."""
        return self._companions[name]

    def another_network(self, name: str, input_channels: int | None = None) -> nn.Module:
        """A network of the same plan as the student, with other initial weights.

        Args:
            name: which its weights follow from, with the seed.
            input_channels: as many as the student's, or another number.
        """
        torch.manual_seed(derived_seed(self.settings.seed, "weights", name))
        network = self.build_network_architecture(
            self.plans_manager,
            self.configuration_manager,
            input_channels or self.num_input_channels,
            self.label_manager.num_segmentation_heads,
            self.enable_deep_supervision,
        )
        self.load_pretrained(network)
        return network

    def supervised(
        self, labelled: LabelledBatch, network: nn.Module | None = None, name: str = "supervised"
    ) -> Term:
        """nnU-Net's loss of the student, or of another network, on the labelled patches.

        With fold "all" the trust in the network is also that of the student's predictions here.
        """
        self.records.add("foreground/labelled", self._labelled_foreground(labelled.target))
        outputs = self.outputs(labelled.x, network)
        if network is None and self._trains_on_validated:
            self._note_labelled(outputs, labelled.target)
        return Term(name, self.loss(outputs, labelled.target), ramped=False)

    def _note_labelled(self, outputs: Any, target: Any) -> None:
        """Count what the student gets right of the augmented labelled patches."""
        logits, ignored = finest(outputs).detach(), self.label_manager.ignore_label
        counts = count_classes(logits, finest(target), self.exclusive, ignored)
        self._labelled_counts.append(counts)

    def outputs(self, x: torch.Tensor, network: nn.Module | None = None) -> Any:
        """All that the student, or another network, says of ``x``, in float32: logits, or a list of
        them, full resolution first, with deep supervision.
        """
        output = (network or self.network)(x)
        return output.float() if isinstance(output, torch.Tensor) else [o.float() for o in output]

    def predict(self, x: torch.Tensor, network: nn.Module | None = None) -> torch.Tensor:
        """Full-resolution logits (B, classes or regions, *spatial) of the student or another."""
        output = self.outputs(x, network)
        return output if isinstance(output, torch.Tensor) else output[0]

    def predict_with(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Full-resolution logits of another network, without gradient or trace."""
        with torch.no_grad(), statistics_kept(network):
            return self.predict(x, network)

    def probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities in float32: softmax over classes, or a sigmoid for each region."""
        return to_probs(logits, self.exclusive)

    def cutmix(self, like: torch.Tensor) -> BoxMix:
        """A random CutMix for tensors with the batch and patch size of ``like``."""
        return sample_box_mix(like, self.settings.cutmix_edge, self.settings.cutmix_probability)

    @property
    def exclusive(self) -> bool:
        """Whether the classes exclude each other (softmax), or are regions (sigmoid)."""
        return not self.label_manager.has_regions

    def pseudo_label_loss(
        self,
        logits: torch.Tensor,
        target: torch.Tensor,
        mask: torch.Tensor,
        class_weights: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """nnU-Net's Dice + cross-entropy against ``target`` on the voxels of ``mask``.

        The Dice is that of the batch: of a class that one patch does not show, the patch says
        little. See :meth:`semi_nnunet.core.losses.DiceAndVoxelLoss.masked`.
        """
        return self._pseudo_label_loss.masked(logits, target, mask, class_weights)

    def annotation(self, target: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The labels at full resolution: one-hot or regions, and a mask of what is annotated."""
        manager = self.label_manager
        heads, regions = manager.num_segmentation_heads, manager.has_regions
        return onehot_and_mask(finest(target), heads, regions, manager.ignore_label)

    def note_pseudo_labels(
        self, probs: torch.Tensor, mask: torch.Tensor, trusted: torch.Tensor | None = None
    ) -> None:
        """Log which fraction of the voxels in ``mask`` is foreground, and which is trusted."""
        voxels = mask.sum().clamp_min(1)
        counts = self.unlabelled_weight.at(self.step) > 0  # before, they are not followed either
        if self.settings.class_weights_from == "pseudo_labels" and counts:
            self.companion(FREQUENCIES).count(hard_pseudo_label(probs, self.exclusive), mask)
        foreground = is_foreground(probs, self.exclusive) & mask
        self.records.add("foreground/pseudo_label", foreground.sum() / voxels)
        if trusted is not None:
            self.records.add("mask_ratio", trusted.sum() / voxels)

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
        self._companions = nn.ModuleDict()
        self.unlabelled_weight = UnlabelledWeight(settings)
        follows = self.uses_unlabelled and self.unlabelled_weight.follows
        self._trains_on_validated = follows and self.fold == "all"
        self._labelled_counts: list[torch.Tensor] = []  # of the steps of an epoch

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Schedule]:
        """Make the companions, and the optimizer of all networks that take a gradient."""
        torch.manual_seed(derived_seed(self.settings.seed, "companions"))
        self._companions.update(self.companions())
        if self.settings.class_weights_from != "given":
            classes = self.label_manager.num_segmentation_heads
            self._companions[FREQUENCIES] = FrequencyWeights(classes)
        self._companions.to(self.device)
        return super().configure_optimizers()

    def class_weights(self) -> Any:
        given = super().class_weights()
        if self.settings.class_weights_from == "given":
            return given
        if given is not None:
            raise UserError(
                f"class_weights {given} are given, and class_weights_from asks for others, got "
                f"{self.settings.class_weights_from!r}. Fix: set one of them in plans['semi']"
            )
        return self.companion(FREQUENCIES)

    def _build_loss(self) -> nn.Module:
        weights = self.class_weights()
        loss = DiceAndVoxelLoss(not self.exclusive, batch_dice=True, class_weights=weights)
        self._pseudo_label_loss = loss.to(self.device)
        return super()._build_loss()

    def _trained_companions(self) -> list[str]:
        """Names of the companions that take a gradient."""
        return [
            name
            for name, module in self._companions.items()
            if any(parameter.requires_grad for parameter in module.parameters())
        ]

    def trained_networks(self) -> list[nn.Module]:
        return [self.network, *(self._companions[name] for name in self._trained_companions())]

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        if self.step == 0:  # -pretrained_weights came after the companions were made
            for module in self._companions.values():
                if isinstance(module, EmaTeacher):
                    module.update(self.bare_network, step=0, decay=0.0)
        if self.uses_unlabelled:
            check_filter(self)
            check_locate(self)
        super().on_train_start()

    # ---------------------------------------------------------------- data

    def streams(self, labelled: Any) -> dict[str, Any]:
        if not self.uses_unlabelled:
            return super().streams(labelled)
        return {**super().streams(labelled), "unlabelled": self._unlabelled_stream(labelled)}

    def _unlabelled_stream(self, labelled: Any) -> UnlabelledSampling:
        oversampling = self.settings.unlabelled_foreground_oversampling
        prior = foreground_prior(labelled._data, labelled._data.identifiers) if oversampling else {}
        previous, cases = self.folder_with_segs_from_previous_stage, self.training_pool()
        require_predictions(previous, cases, self.command_of_previous_stage())
        dataset = UnlabelledDataset(self.pool.folder, cases, prior, previous, self.pool.located)
        batch_size = self._share_of_rank(self.settings.unlabelled_batch_size)
        if batch_size < self.smallest_unlabelled_batch:
            raise UserError(
                f"{type(self).__name__} needs at least {self.smallest_unlabelled_batch} unlabelled "
                f"patches on each GPU, to mix one into another, got unlabelled_batch_size "
                f"{self.settings.unlabelled_batch_size} for all. Fix: raise it in plans['semi']"
            )
        return unlabelled_like(
            labelled,
            dataset,
            batch_size,
            self.label_manager,
            oversampling,
            self.settings.unlabelled_rotation_and_scaling,
        )

    @cached_property
    def pool(self) -> UnlabelledCases:
        """The preprocessed unlabelled images of this configuration."""
        base, name = (
            self.preprocessed_dataset_folder_base,
            self.configuration_manager.data_identifier,
        )
        return UnlabelledCases(unlabelled_folder(base, name), self.preprocess_command)

    def unlabelled_cases(self) -> list[str]:
        """The finished unlabelled cases, but for those of patients whom this fold validates on.

        Raises:
            UserError: there are none.
        """
        return self._of_others(self.pool.all(self.labelled_identifiers()))

    def training_pool(self) -> list[str]:
        """The :meth:`unlabelled_cases` to train on: all, or what the last filtering kept."""
        return self._of_others(self.pool.to_train_on(self.labelled_identifiers()))

    def _of_others(self, cases: list[str]) -> list[str]:
        """The cases of patients whom this fold does not validate on; fold "all" holds out none."""
        if self.fold == "all" or self.patient_of is itself:  # a case is not also a labelled one
            return cases
        others = apart_from(cases, self.do_split()[1], self.patient_of)
        if not others:
            raise UserError(
                f"training on unlabelled images needs some, but all {len(cases)} are of patients "
                f"whom fold {self.fold} validates on. Fix: put images of others into imagesUn"
            )
        return others

    def current_cases(self) -> dict[str, list[str]]:
        unlabelled = self.training_pool() if self.uses_unlabelled else []
        return {**super().current_cases(), "unlabelled": unlabelled}

    def _share_of_rank(self, batch_size: int) -> int:
        if not self.is_ddp:
            return batch_size
        ranks, rank = dist.get_world_size(), dist.get_rank()
        return batch_size // ranks + (rank < batch_size % ranks)

    # ---------------------------------------------------------------- a step

    def train_step(self, batch: Batches) -> dict[str, float]:
        """One optimizer step: the terms of each batch are back-propagated, then one update."""
        seed = derived_seed(self.settings.seed, "step", self.step, self.local_rank)
        torch.manual_seed(seed)  # views, dropout and noise follow from the step alone
        self.optimizer.zero_grad(set_to_none=True)
        for part in batch:
            labelled, unlabelled = self._to_device(part)
            if FREQUENCIES in self._companions:
                self.companion(FREQUENCIES).count(*self.annotation(labelled.target))
            terms = iter(self.terms(labelled, unlabelled))
            while (term := self._next_term(terms)) is not None:
                supervised = term.name.startswith("supervised")
                cases = labelled.keys + (() if supervised else unlabelled.keys)
                self._back_propagate(term, cases, 1.0 / len(batch))
                if term.ramped and self.unlabelled_weight.at(self.step) == 0.0:
                    break  # the unlabelled terms wait, and so does the work for the others
        self._update_weights(self._all_keys(batch))
        self.after_optimizer_step(self.step)
        self._step_in_epoch += 1
        return {}  # the losses stay on the device until the end of the epoch

    def _to_device(self, batch: dict[str, dict[str, Any]]) -> tuple[LabelledBatch, UnlabelledBatch]:
        """The batch on the device; without an unlabelled stream its part has no samples."""

        def move(value: Any) -> Any:
            if isinstance(value, list):
                return [move(item) for item in value]
            return value.to(self.device, non_blocking=True)

        raw = batch["labelled"]
        labelled = LabelledBatch(
            self.labelled_view(move(raw["data"])), move(raw["target"]), tuple(raw["keys"])
        )
        if "unlabelled" not in batch:
            nothing = labelled.x[:0]
            return labelled, UnlabelledBatch(nothing, nothing, nothing[:, :1].bool(), ())
        raw = batch["unlabelled"]
        x_weak, inside = move(raw["data"]), move(raw["target"])[:, :1] >= 0  # -1: padding
        keys = tuple(raw["keys"])
        return labelled, UnlabelledBatch(x_weak, self.strong_view(x_weak), inside, keys)

    def _next_term(self, terms: Iterator[Term]) -> Term | None:
        """The next term; no cast weight is kept for it that was cast without gradient before."""
        dtype = self.mixed_precision_dtype
        cast = autocast(self.device.type, dtype, cache_enabled=False) if dtype else nullcontext()
        with cast:
            return next(terms, None)

    def _back_propagate(self, term: Term, cases: tuple[str, ...], share: float) -> None:
        factor = self.unlabelled_weight.at(self.step) if term.ramped else 1.0
        weight = term.weight * factor
        self.records.add(f"loss/{term.name}", term.value)
        self.records.add(f"weight/{term.name}", weight)
        self.watch.add(Seen(term.name, term.value.detach(), self.step, cases))
        if weight != 0.0:
            loss = term.value * (weight * share)
            (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    @staticmethod
    def _all_keys(batch: Batches) -> tuple[str, ...]:
        return tuple(key for part in batch for stream in part.values() for key in stream["keys"])

    def _update_weights(self, cases: tuple[str, ...]) -> None:
        if self.is_ddp:
            average_gradients(self.trained_networks())
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        limit = self.settings.gradient_clip or float("inf")
        for network in self.trained_networks():
            norm = nn.utils.clip_grad_norm_(network.parameters(), limit)
            if self.grad_scaler is None:  # a scaler skips such a step and goes on
                self.watch.add(Seen("gradient", norm.detach(), self.step, cases))
        self.watch.look()
        if self.grad_scaler is not None:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            self.optimizer.step()

    def on_epoch_start(self) -> None:
        super().on_epoch_start()
        settings, epoch = self.settings, self.current_epoch
        if not self.uses_unlabelled:
            return
        if settings.filter_score == "checkpoints" and epoch in snapshot_epochs(
            settings.filter_epochs
        ):
            take_snapshot(self)
        if epoch in settings.filter_epochs:
            self.pool.kept = set(filter_cases(self))
        if epoch in settings.locate_epochs:
            self.pool.located, self.pool.located_epoch = locate_foreground(self), epoch
        if epoch in (*settings.filter_epochs, *settings.locate_epochs):
            self.restart_loaders()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._companions.train()  # a teacher stays in evaluation mode

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._companions.eval()

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        super().on_train_epoch_end(train_outputs)
        values = self._epoch_values
        labelled, pseudo = values.get("foreground/labelled"), values.get("foreground/pseudo_label")
        warning = collapse_warning(pseudo, labelled)
        if warning and self.unlabelled_weight.trust > 0:
            self.print_to_log_file(warning)

    # ---------------------------------------------------------------- the deployed network

    @property
    def deploys_student(self) -> bool:
        """Whether the student itself is the network that is deployed."""
        return self.prediction_network() is self.bare_network

    def deployed_networks(self) -> list[nn.Module]:
        """The :meth:`prediction_network`, or those it averages."""
        network = self.prediction_network()
        return list(network.members) if isinstance(network, NetworkAverage) else [network]

    @contextmanager
    def deployed(self) -> Iterator[None]:
        """Inside the block, ``self.network`` is the network that would be deployed."""
        with self._as_network(None if self.deploys_student else self.prediction_network()):
            yield

    @contextmanager
    def _as_network(self, network: nn.Module | None) -> Iterator[None]:
        """Inside the block, ``self.network`` is the given one; None leaves it."""
        student = self.network
        self.network = network or student
        try:
            yield
        finally:
            self.network = student

    def validation_step(self, batch: Batches) -> dict[str, Any]:
        raw = batch[0]["validation"]
        outputs = {}
        for name, network in self.validated_networks().items():
            target = raw["target"]  # a copy of it: nnU-Net overwrites the ignore label
            copied = [t.clone() for t in target] if isinstance(target, list) else target.clone()
            with self._as_network(network):
                output = super().validation_step({**raw, "target": copied})
            outputs |= {f"{name}_{key}": output[f"{key}_hard"] for key in COUNTS}
        manager, full = self.label_manager, finest(raw["target"])
        annotated = annotated_voxels(full, manager.has_regions, manager.ignore_label)
        outputs["voxels"] = int(annotated.sum())
        with self.deployed():
            return {**super().validation_step(raw), **outputs}

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        with np.errstate(invalid="ignore"):  # a class may be absent from all patches
            super().on_validation_epoch_end(val_outputs)
            dice = {}
            for name in self.validated_networks():
                tp, fp, fn = summed_counts(val_outputs, f"{name}_{{}}")
                dice[f"dice/{name}"] = float(np.nanmean(2 * tp / (2 * tp + fp + fn)))
        dice = self.mean_over_ranks(dice)  # nnU-Net's is of all ranks together
        dice["dice/deployed"] = float(self.logger.get_value("mean_fg_dice", step=-1))
        self._epoch_values.update(dice)
        if self.uses_unlabelled:
            self._trust_as_validated(val_outputs)

    def _trust_as_validated(self, val_outputs: list[dict]) -> None:
        """Weigh the unlabelled terms of the next epoch by what this one got right."""
        voxels = sum(output["voxels"] for output in val_outputs)
        of_classes = trust_of_classes(*summed_counts(val_outputs, "{}_hard"), voxels)
        if self._labelled_counts:
            last = max(1, len(self._labelled_counts) // 4)  # nearly the network that was validated
            counts = torch.stack(self._labelled_counts[-last:]).sum(0).cpu().double().numpy()
            of_classes = trust_in_unknown(of_classes, trust_of_classes(*counts))
            self._labelled_counts.clear()
        weight, next_step = self.unlabelled_weight, self.step
        trust = weight.trust_after(of_classes, next_step)
        trust = self.mean_over_ranks({"trust": trust})["trust"]
        if trust > 0 and weight.trust == 0:
            self.print_to_log_file(f"the unlabelled terms begin at step {next_step}")
        if trust == 0 and next_step >= self.settings.unlabelled_start_steps:
            self.print_to_log_file(
                "WARNING: no class is predicted yet, the unlabelled terms wait. A longer training "
                "may be needed (plans['semi']: epochs)"
            )
        weight.trust = self._epoch_values["trust"] = trust

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with self.deployed(), prepared_stages(self) as stages:
            super().perform_actual_validation(save_probabilities)
        if stages and predicts_pool(self.fold):
            predict_for_next_stages(self, stages)

    def checkpoint_content(self, next_epoch: int) -> dict[str, Any]:
        content = super().checkpoint_content(next_epoch)
        deployed, *others = (network.state_dict() for network in self.deployed_networks())
        content["network_weights"] = deployed
        kept = self.pool.kept
        content["semi"]["companions"] = self._companions.state_dict()
        content["semi"]["averaged_with"] = others
        content["semi"]["kept"] = None if kept is None else sorted(kept)
        content["semi"]["located_epoch"] = self.pool.located_epoch
        content["semi"]["trust"] = self.unlabelled_weight.trust
        return content

    def restore(self, checkpoint: dict[str, Any]) -> None:
        semi = checkpoint["semi"]
        self.unlabelled_weight.trust = semi.get("trust", self.unlabelled_weight.trust)
        kept = semi.get("kept")
        self.pool.kept = None if kept is None else set(kept)
        self.pool.located_epoch = semi.get("located_epoch")
        if self.pool.located_epoch is not None and self._resuming:
            self.pool.located = read_foreground(self, self.pool.located_epoch)
        require_same_weights(self._companions, semi["companions"])
        super().restore(checkpoint)
        self._companions.load_state_dict(semi["companions"])

    # ---------------------------------------------------------------- details

    def _labelled_foreground(self, target: Any) -> torch.Tensor:
        """Fraction of foreground among the annotated voxels of the full-resolution target."""
        onehot, annotated = self.annotation(target)
        foreground = is_foreground(onehot, self.exclusive)
        return (foreground & annotated).sum() / annotated.sum().clamp_min(1)


def finest(levels: Any) -> torch.Tensor:
    """What is at full resolution of one tensor, or of a list for deep supervision."""
    return levels[0] if isinstance(levels, list) else levels


def summed_counts(val_outputs: list[dict], name: str) -> list[np.ndarray]:
    """True positives, false positives and false negatives of the classes, each (classes,).

    Args:
        val_outputs: of the validation steps.
        name: of a count in them, "{}" for tp, fp or fn.
    """
    return [np.sum([output[name.format(key)] for output in val_outputs], 0) for key in COUNTS]


def require_same_weights(companions: nn.Module, stored: Mapping[str, torch.Tensor]) -> None:
    """Check that a checkpoint has the companions that the settings ask for.

    Raises:
        UserError: naming those that only one of the two has.
    """
    now = companions.state_dict()
    different = {name.split(".")[0] for name in now.keys() ^ stored.keys()}
    if different:
        raise UserError(
            f"the checkpoint was written with other settings: it and plans['semi'] differ in "
            f"{', '.join(sorted(different))}. Fix: undo the change (semi_settings.json has the "
            f"settings of then), or train from the start"
        )
