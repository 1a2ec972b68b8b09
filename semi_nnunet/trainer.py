"""The one module that knows nnU-Net's trainer: all that a method need not care about.

A method subclasses :class:`SemiTrainer`, names its companions (a teacher, say) and yields its loss
terms; see ``semi_nnunet/methods/mean_teacher.py``. The trainer brings the batches, weighs and
back-propagates the terms, keeps the history, and writes checkpoints from which training resumes
exactly.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.crossval_split import generate_crossval_split
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import autocast, nn
from torch import distributed as dist
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

import semi_nnunet
from semi_nnunet import checkpoints
from semi_nnunet.augment.views import AppearanceView
from semi_nnunet.cascade import predict_for_next_stages, require_predictions
from semi_nnunet.common_settings import SemiSettings
from semi_nnunet.core.ema import EmaTeacher
from semi_nnunet.core.losses import DiceAndVoxelLoss
from semi_nnunet.core.ramps import ramp
from semi_nnunet.data.layout import unlabelled_folder
from semi_nnunet.data.loading import (
    LabelledBatch,
    StepDataset,
    StepLoader,
    UnlabelledBatch,
    UnlabelledSampling,
    reproducible,
)
from semi_nnunet.data.manifest import Manifest
from semi_nnunet.data.streams import no_augmentation_processes, unlabelled_like
from semi_nnunet.data.unlabelled import UnlabelledDataset, foreground_prior
from semi_nnunet.errors import UserError, print_user_errors_plainly
from semi_nnunet.files import remove_leftovers, write_json
from semi_nnunet.history import History, StepRecords, TensorBoardLogger
from semi_nnunet.optimisation import (
    PlateauSchedule,
    Schedule,
    build_optimizer,
    with_deep_supervision,
)
from semi_nnunet.planning.facts import collect_facts, resolve_settings
from semi_nnunet.seeds import derived_seed
from semi_nnunet.watch import FiniteWatch, Seen, TimeLeft, collapse_warning

NEVER = 2**31
Batches = list[dict[str, dict[str, Any]]]


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


class EarlyStop(Exception):
    """The validation Dice has not risen for the stated number of epochs."""


class SemiTrainer(nnUNetTrainer):
    """An nnU-Net trainer whose loss is the sum of the terms that a method yields.

    A method overrides :meth:`companions`, :meth:`terms`, :meth:`after_optimizer_step` and
    :meth:`prediction_network`, and sets ``settings_class``.
    """

    settings_class: ClassVar[type[SemiSettings]] = SemiSettings
    uses_unlabelled: ClassVar[bool] = True

    # ---------------------------------------------------------------- what a method says

    def companions(self) -> dict[str, nn.Module]:
        """Networks beside the student, by name; they are moved, saved and restored."""
        return {}

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        """The terms of the loss; each is back-propagated and freed before the next is asked for."""
        raise NotImplementedError

    def after_optimizer_step(self, step: int) -> None:
        """Called after the student's weights changed in optimizer step ``step`` (from 0)."""

    def prediction_network(self) -> nn.Module:
        """The network to validate, save and deploy."""
        return self.bare_network

    @property
    def smallest_unlabelled_batch(self) -> int:
        """How many unlabelled patches a step needs: two where they are mixed."""
        return 2 if getattr(self.settings, "cutmix_probability", 0) > 0 else 1

    # ---------------------------------------------------------------- what a method may use

    @property
    def bare_network(self) -> nn.Module:
        """The student without the wrappers of DDP and torch.compile."""
        return unwrapped(self.network)

    def companion(self, name: str) -> Any:
        """One of the :meth:`companions`, ready to be called."""
        return self._wrapped.get(name, self._companions[name])

    @property
    def step(self) -> int:
        """The optimizer step that is under way or comes next, from 0."""
        return self.current_epoch * self.num_iterations_per_epoch + self._step_in_epoch

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.num_epochs * self.num_iterations_per_epoch

    def supervised(self, labelled: LabelledBatch) -> Term:
        """nnU-Net's loss of the student on the labelled patches."""
        self.records.add("foreground/labelled", self._labelled_foreground(labelled.target))
        loss = self.loss(self.network(labelled.x), labelled.target)
        return Term("supervised", loss, ramped=False)

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """The student's full-resolution logits (B, classes or regions, *spatial)."""
        output = self.network(x)
        if isinstance(output, torch.Tensor):
            return output
        if self.is_ddp:  # wants every head to take part in the backward pass
            return output[0] + sum(0.0 * other.sum() for other in output[1:])
        return output[0]

    def predict_with(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Full-resolution logits of another network, without gradient."""
        with torch.no_grad():
            output = network(x)
        return output if isinstance(output, torch.Tensor) else output[0]

    def probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities in float32: softmax over classes, or a sigmoid for each region."""
        logits = logits.float()
        return torch.sigmoid(logits) if self.label_manager.has_regions else logits.softmax(1)

    def note_pseudo_labels(self, probs: torch.Tensor, mask: torch.Tensor) -> None:
        """Log the fraction of the voxels in ``mask`` that the pseudo labels call foreground."""
        if self.label_manager.has_regions:
            foreground = (probs > 0.5).any(1, keepdim=True)
        else:
            foreground = probs.argmax(1, keepdim=True) > 0
        fraction = (foreground & mask).sum() / mask.sum().clamp_min(1)
        self.records.add("foreground/pseudo_label", fraction)

    # ---------------------------------------------------------------- nnU-Net's seams: set-up

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ):
        print_user_errors_plainly()
        own_plans = {"continue_training": False, **plans}  # nnU-Net takes that key out
        super().__init__(own_plans, configuration, fold, dataset_json, device)
        base = self.preprocessed_dataset_folder_base
        facts = collect_facts(
            plans, configuration, dataset_json, None if base is None else Path(base)
        )
        trainer = type(self).__name__
        self.resolved = resolve_settings(
            self.settings_class, trainer, configuration, plans, facts, known_trainers()
        )
        self.settings: Any = self.resolved.settings
        self._apply_settings()
        self.records, self.history, self.time_left = StepRecords(), History(), TimeLeft()
        self.watch = FiniteWatch(every=100 if self.device.type == "cuda" else 1)
        self._companions, self._wrapped = nn.ModuleDict(), {}
        self._resuming = plans.get("continue_training", True)  # nnU-Net says False with --val
        self._stopped_early = False
        self._cases: dict[str, list[str]] = {}
        self._epoch_values: dict[str, float] = {}
        self._best_epoch = self._step_in_epoch = 0

    def _apply_settings(self) -> None:
        """Set nnU-Net's attributes from the settings."""
        settings = self.settings
        self.num_epochs = settings.epochs
        self.num_iterations_per_epoch = settings.steps_per_epoch
        self.num_val_iterations_per_epoch = settings.validation_steps_per_epoch
        self.initial_lr, self.weight_decay = settings.initial_lr, settings.weight_decay
        outputs = len(self.configuration_manager.pool_op_kernel_sizes) - 1
        self.enable_deep_supervision = settings.deep_supervision and outputs > 1  # nnU-Net: 0 / 0
        self.save_every = NEVER  # nnU-Net would save before it knows whether the epoch was the best
        self.configuration_manager.configuration["batch_size"] = settings.labelled_batch_size
        channels = len(self.dataset_json.get("channel_names") or self.dataset_json["modality"])
        outside = [bool(use) for use in self.configuration_manager.use_mask_for_norm]
        outside = outside if len(outside) == channels else [False] * channels
        strength = settings.appearance_strength
        self.strong_view = AppearanceView(strength, settings.appearance_probability, outside)
        self.labelled_view = AppearanceView(strength, settings.labelled_appearance, outside)
        if settings.tensorboard and self.local_rank == 0:
            self.logger.loggers.append(TensorBoardLogger(Path(self.output_folder) / "tensorboard"))

    def initialize(self) -> None:
        torch.manual_seed(derived_seed(self.settings.seed, "weights"))
        super().initialize()

        for name in self._trained_companions() if self.is_ddp else ():
            self._wrapped[name] = DistributedDataParallel(self._companions[name])

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Schedule]:
        """The optimizer of the student and of the companions that are trained; makes them."""
        torch.manual_seed(derived_seed(self.settings.seed, "companions"))
        self._companions.update(self.companions())
        self._companions.to(self.device)
        parameters = [p for network in self._trained_networks() for p in network.parameters()]
        return build_optimizer(parameters, self.settings)

    def _trained_companions(self) -> list[str]:
        """Names of the companions that take a gradient."""
        return [
            name
            for name, module in self._companions.items()
            if any(parameter.requires_grad for parameter in module.parameters())
        ]

    def _trained_networks(self) -> list[nn.Module]:
        """The student and the companions that take a gradient."""
        return [self.network, *(self._companions[name] for name in self._trained_companions())]

    def _build_loss(self) -> nn.Module:
        weights = self.settings.class_weights
        if self.settings.supervised_loss == "dice_ce" and weights is None:
            return super()._build_loss()
        heads = self.label_manager.num_segmentation_heads
        if weights is not None and len(weights) != heads:
            raise UserError(
                f"class_weights must be one number for each of the {heads} classes (background "
                f"included) or regions, got {len(weights)}: {weights}. Fix: correct plans['semi']"
            )
        loss = DiceAndVoxelLoss(
            regions=self.label_manager.has_regions,
            ignore_label=self.label_manager.ignore_label,
            batch_dice=self.configuration_manager.batch_dice,
            focal_gamma=self.settings.focal_gamma
            if "focal" in self.settings.supervised_loss
            else 0.0,
            class_weights=weights,
        ).to(self.device)
        if not self.enable_deep_supervision:
            return loss
        scales = len(self._get_deep_supervision_scales())
        return with_deep_supervision(loss, scales, lowest_weight=1e-6 if self.is_ddp else 0.0)

    def _set_batch_size_and_oversample(self) -> None:
        if self.is_ddp and self.settings.labelled_batch_size < dist.get_world_size():
            raise UserError(
                f"labelled_batch_size must be at least the number of GPUs, "
                f"{dist.get_world_size()}, got {self.settings.labelled_batch_size}. Fix: train on "
                f"fewer GPUs or raise it in plans['semi']"
            )
        super()._set_batch_size_and_oversample()

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:
        *geometry, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if not self.settings.mirror:
            mirror_axes = self.inference_allowed_mirroring_axes = None
        return (*geometry, mirror_axes)

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        decoder = getattr(unwrapped(self.network), "decoder", None)
        if decoder is not None:
            decoder.deep_supervision = enabled

    # ---------------------------------------------------------------- nnU-Net's seams: data

    def labelled_identifiers(self) -> list[str]:
        """Every preprocessed labelled case."""
        if self.dataset_class is None:
            self.dataset_class = infer_dataset_class(self.preprocessed_dataset_folder)
        return sorted(self.dataset_class.get_identifiers(self.preprocessed_dataset_folder))

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split; fewer than five labelled cases get one fold each."""
        splits_file = Path(self.preprocessed_dataset_folder_base) / "splits_final.json"
        cases = self.labelled_identifiers()
        if self.fold != "all" and not splits_file.exists() and len(cases) < 5:
            if len(cases) < 2:
                raise UserError(
                    f"fold {self.fold} needs a training and a validation case, found {len(cases)} "
                    f"labelled case. Fix: train fold 'all'"
                )
            split = generate_crossval_split(cases, n_splits=len(cases))
            write_json(splits_file, checkpoints.plain(split))  # every rank the same, atomically
        training, validation = super().do_split()
        missing = sorted(set(training + validation) - set(cases))
        if missing or not training:
            what = (
                f"names cases that are not preprocessed: {', '.join(missing)}"
                if missing
                else "is empty"
            )
            raise UserError(
                f"fold {self.fold} of {splits_file} {what}. Fix: mend or delete that file"
            )
        return training, validation

    def _command_of_previous_stage(self) -> str:
        stage = self.configuration_manager.previous_stage_name
        where = f"{self.plans_manager.dataset_name} {stage} FOLD -tr {type(self).__name__}"
        return f"train every fold of it: nnUNetv2_train {where}"

    def get_dataloaders(self) -> tuple[StepLoader, StepLoader]:
        previous = self.folder_with_segs_from_previous_stage
        training_cases, validation_cases = self.do_split()
        require_predictions(
            previous, [*training_cases, *validation_cases], self._command_of_previous_stage()
        )
        with no_augmentation_processes():
            training, validation = (part.data_loader for part in super().get_dataloaders())
        for loader in (training, validation):
            loader.transforms = reproducible(loader.transforms)
        streams = {"labelled": training}
        if self.uses_unlabelled:
            streams["unlabelled"] = self._unlabelled_stream(training)
        seed, rank = self.settings.seed, self.local_rank
        workers, on_gpu = get_allowed_n_proc_DA(), self.device.type == "cuda"
        steps = StepDataset(streams, seed, rank, self.settings.accumulate_batches)
        checks = StepDataset({"validation": validation}, seed, rank)
        first = self.current_epoch * self.num_iterations_per_epoch
        return (
            StepLoader(steps, first, workers, on_gpu),
            StepLoader(checks, 0, workers // 2, on_gpu, period=self.num_val_iterations_per_epoch),
        )

    def _unlabelled_stream(self, labelled: Any) -> UnlabelledSampling:
        oversampling = self.settings.unlabelled_foreground_oversampling
        prior = foreground_prior(labelled._data, labelled._data.identifiers) if oversampling else {}
        previous, cases = self.folder_with_segs_from_previous_stage, self.unlabelled_cases()
        require_predictions(previous, cases, self._command_of_previous_stage())
        dataset = UnlabelledDataset(self.unlabelled_folder, cases, prior, previous)
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

    @property
    def unlabelled_folder(self) -> Path:
        """The preprocessed unlabelled images of this configuration."""
        base, identifier = (
            self.preprocessed_dataset_folder_base,
            self.configuration_manager.data_identifier,
        )
        return unlabelled_folder(base, identifier)

    def unlabelled_cases(self) -> list[str]:
        """The finished unlabelled cases.

        Raises:
            UserError: there are none, or one of them is also labelled.
        """
        cases = sorted(Manifest(self.unlabelled_folder).present())
        if not cases:
            plans = self.plans_manager
            raise UserError(
                f"{type(self).__name__} needs unlabelled images, found none in "
                f"{self.unlabelled_folder}. Fix: put them into imagesUn of the raw data set and "
                f"run semi_nnunet preprocess -d {plans.dataset_name} "
                f"-c {self.configuration_name} -p {plans.plans_name}"
            )
        both = sorted(set(self.labelled_identifiers()).intersection(cases))
        if both:
            raise UserError(
                f"a case must be labelled or unlabelled, not both: {', '.join(both)}. Fix: remove "
                f"it from imagesUn or imagesTr and run semi_nnunet preprocess again"
            )
        return cases

    def _share_of_rank(self, batch_size: int) -> int:
        if not self.is_ddp:
            return batch_size
        ranks, rank = dist.get_world_size(), dist.get_rank()
        return batch_size // ranks + (rank < batch_size % ranks)

    # ---------------------------------------------------------------- training

    def run_training(self) -> None:
        try:
            super().run_training()
        except EarlyStop as reason:
            self.print_to_log_file(str(reason))
            self._stopped_early = True
            self.on_train_end()

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        if self.step == 0:  # -pretrained_weights came after the companions were made
            for module in self._companions.values():
                if isinstance(module, EmaTeacher):
                    module.update(self.bare_network, step=0, decay=0.0)
        super().on_train_start()
        self._cases = self._current_cases()
        if self.local_rank == 0:
            remove_leftovers(self.output_folder)
            self._write_settings()

    def on_train_end(self) -> None:
        super().on_train_end()
        for loader in (self.dataloader_train, self.dataloader_val):
            loader.close()

    def _current_cases(self) -> dict[str, list[str]]:
        """The labelled training cases and the unlabelled cases."""
        unlabelled = self.unlabelled_cases() if self.uses_unlabelled else []
        return {"labelled": [str(c) for c in self.do_split()[0]], "unlabelled": unlabelled}

    def _write_settings(self) -> None:
        """Say what this training is: settings with reasons, cases, versions."""
        values, reasons = self.resolved.as_dict(), self.resolved.reasons
        record = {
            "trainer": type(self).__name__,
            "semi_nnunet": semi_nnunet.__version__,
            "torch": torch.__version__,
            "labelled_training_cases": self._cases["labelled"],
            "unlabelled_cases": self._cases["unlabelled"],
            "settings": {
                key: {"value": value, "reason": reasons[key]} for key, value in values.items()
            },
        }
        write_json(Path(self.output_folder) / "semi_settings.json", checkpoints.plain(record))
        self.print_to_log_file("semi_nnunet:", *(f"{key}={value}" for key, value in values.items()))

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._step_in_epoch = 0

    def train_step(self, batch: Batches) -> dict[str, float]:
        """One optimizer step: the terms of each batch are back-propagated, then one update."""
        seed = derived_seed(self.settings.seed, "step", self.step, self.local_rank)
        torch.manual_seed(seed)  # views, dropout and noise follow from the step alone
        self.optimizer.zero_grad(set_to_none=True)
        for part in batch:
            labelled, unlabelled = self._to_device(part)
            terms = iter(self.terms(labelled, unlabelled))
            while (term := self._next_term(terms)) is not None:
                cases = (
                    labelled.keys if term.name == "supervised" else labelled.keys + unlabelled.keys
                )
                self._back_propagate(term, cases, 1.0 / len(batch))
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
            self.labelled_view(move(raw["data"])), move(raw["target"]), raw["keys"]
        )
        if "unlabelled" not in batch:
            nothing = labelled.x[:0]
            return labelled, UnlabelledBatch(nothing, nothing, nothing[:, :1].bool(), ())
        raw = batch["unlabelled"]
        x_weak, inside = move(raw["data"]), move(raw["target"])[:, :1] >= 0  # -1: padding
        return labelled, UnlabelledBatch(x_weak, self.strong_view(x_weak), inside, raw["keys"])

    def _next_term(self, terms: Iterator[Term]) -> Term | None:
        with autocast("cuda") if self.device.type == "cuda" else nullcontext():
            return next(terms, None)

    def _back_propagate(self, term: Term, cases: tuple[str, ...], share: float) -> None:
        settings = self.settings
        factor = (
            settings.unlabelled_weight * ramp(settings.ramp_up, self.step, settings.ramp_up_steps)
            if term.ramped
            else 1.0
        )
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
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        limit = self.settings.gradient_clip or float("inf")
        for network in self._trained_networks():
            norm = nn.utils.clip_grad_norm_(network.parameters(), limit)
            if self.grad_scaler is None:  # a scaler skips such a step and goes on
                self.watch.add(Seen("gradient", norm.detach(), self.step, cases))
        self.watch.look()
        if self.grad_scaler is not None:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            self.optimizer.step()

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        self.watch.look(now=True)
        means = self._mean_over_ranks(self.records.means())
        names = [key.removeprefix("loss/") for key in means if key.startswith("loss/")]
        total = sum(means[f"loss/{name}"] * means[f"weight/{name}"] for name in names)
        self._epoch_values = {"learning_rate": self.optimizer.param_groups[0]["lr"], **means}
        if isinstance(self.lr_scheduler, PlateauSchedule):
            self.lr_scheduler.observe(total)
        self.logger.log("train_losses", total, self.current_epoch)

    def _mean_over_ranks(self, means: dict[str, float]) -> dict[str, float]:
        if not self.is_ddp:
            return means
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, means)
        return {key: float(np.mean([part[key] for part in gathered])) for key in means}

    # ---------------------------------------------------------------- validation

    @property
    def deploys_student(self) -> bool:
        """Whether the student itself is the network that is deployed."""
        return self.prediction_network() is self.bare_network

    @contextmanager
    def deployed(self) -> Iterator[None]:
        """Inside the block, ``self.network`` is the network that would be deployed."""
        student = self.network
        if not self.deploys_student:
            self.network = self.prediction_network()
        try:
            yield
        finally:
            self.network = student

    def validation_step(self, batch: Batches) -> dict[str, Any]:
        raw = batch[0]["validation"]
        outputs = {}
        if not self.deploys_student:  # first, on a copy: nnU-Net overwrites the ignore label
            target = raw["target"]
            copied = [t.clone() for t in target] if isinstance(target, list) else target.clone()
            student = super().validation_step({**raw, "target": copied})
            outputs = {f"student_{key}": student[key] for key in ("tp_hard", "fp_hard", "fn_hard")}
        with self.deployed():
            return {**super().validation_step(raw), **outputs}

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        with np.errstate(invalid="ignore"):  # a class may be absent from all patches
            super().on_validation_epoch_end(val_outputs)
            self._epoch_values["dice/deployed"] = float(
                self.logger.get_value("mean_fg_dice", step=-1)
            )
            if not self.deploys_student:
                tp, fp, fn = (
                    np.sum([output[f"student_{key}_hard"] for output in val_outputs], 0)
                    for key in ("tp", "fp", "fn")
                )
                dice = {"dice/student": float(np.nanmean(2 * tp / (2 * tp + fp + fn)))}
                self._epoch_values.update(self._mean_over_ranks(dice))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        with self.deployed():
            super().perform_actual_validation(save_probabilities)
            if self.uses_unlabelled and self.configuration_manager.next_stage_names:
                self.set_deep_supervision_enabled(False)
                predict_for_next_stages(self, self.unlabelled_cases())
                self.set_deep_supervision_enabled(True)

    # ---------------------------------------------------------------- end of an epoch

    def on_epoch_start(self) -> None:
        super().on_epoch_start()
        self._epoch_started = time.monotonic()

    def on_epoch_end(self) -> None:
        epoch = self.current_epoch
        self._log_epoch(epoch)
        if self._best_ema is None or self.logger.get_value("ema_fg_dice", step=-1) > self._best_ema:
            self._best_epoch = epoch
        super().on_epoch_end()  # saves checkpoint_best and counts the epoch
        done = epoch + 1
        if done % self.settings.save_every_epochs == 0 and done < self.num_epochs:
            self._write_checkpoint(
                Path(self.output_folder) / "checkpoint_latest.pth", next_epoch=done
            )
        patience = self.settings.early_stopping_patience_epochs
        if patience and epoch - self._best_epoch >= patience:
            raise EarlyStop(
                f"Early stop: the moving-average Dice has not risen above {self._best_ema:.4f} "
                f"(epoch {self._best_epoch}) for {patience} epochs"
            )

    def _log_epoch(self, epoch: int) -> None:
        seconds = time.monotonic() - self._epoch_started
        values = self._epoch_values
        self.history.add(epoch, {**values, "seconds": round(seconds, 2)})
        for logger in self.logger.loggers:
            for key, value in values.items():
                logger.log(f"semi/{key}", value, epoch)
        labelled, pseudo = values.get("foreground/labelled"), values.get("foreground/pseudo_label")
        warning = collapse_warning(pseudo, labelled)
        patience = min(self.settings.ramp_up_steps / 2, 10 * self.num_iterations_per_epoch)
        if warning and self.step >= patience:
            self.print_to_log_file(warning)
        left = self.time_left.after_epoch(seconds, self.num_epochs - epoch - 1)
        self.print_to_log_file(f"{epoch + 1} of {self.num_epochs} epochs done, about {left} left")
        if self.local_rank == 0:
            self._write_history()

    def _write_history(self) -> None:
        """For people to look at; a full disk must not cost the training."""
        try:
            self.history.write_csv(Path(self.output_folder) / "semi_history.csv")
            self.history.write_picture(Path(self.output_folder) / "semi_history.png")
        except UserError as error:
            self.print_to_log_file(f"WARNING: {error}")

    # ---------------------------------------------------------------- checkpoints

    def identity(self) -> dict[str, Any]:
        """What must agree between a checkpoint and the training that continues from it."""
        return {
            "trainer": type(self).__name__,
            "dataset": self.plans_manager.dataset_name,
            "configuration": self.configuration_name,
            "plans": self.plans_manager.plans_name,
            "fold": self.fold,
            "classes or regions": self.label_manager.num_segmentation_heads,
            "input channels": self.num_input_channels,
            "architecture": self.configuration_manager.configuration["architecture"],
            "patch size": list(self.configuration_manager.patch_size),
        }

    def save_checkpoint(self, filename: str) -> None:
        self._write_checkpoint(Path(filename), next_epoch=self.current_epoch + 1)

    def _write_checkpoint(self, path: Path, next_epoch: int) -> None:
        if self.local_rank != 0 or self.disable_checkpointing:
            return
        plateau = isinstance(self.lr_scheduler, PlateauSchedule)
        checkpoint = {
            "network_weights": self.prediction_network().state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": self.grad_scaler.state_dict()
            if self.grad_scaler is not None
            else None,
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": next_epoch,
            "init_args": self.my_init_kwargs,
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            "semi": {
                "version": semi_nnunet.__version__,
                "identity": self.identity(),
                "settings": self.resolved.as_dict(),
                "student": self.bare_network.state_dict(),
                "companions": self._companions.state_dict(),
                "schedule": self.lr_scheduler.state_dict() if plateau else None,
                "history": self.history.rows,
                "best_epoch": self._best_epoch,
                "stopped_early": self._stopped_early,
                "cases": self._cases,
            },
        }
        checkpoints.save(checkpoint, path)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Continue from a checkpoint's content, or from a file.

        Where the file is damaged, from the most advanced readable checkpoint of its folder.
        """
        if not self.was_initialized:
            self.initialize()
        path: str | Path = "the given checkpoint"
        if isinstance(filename_or_checkpoint, dict):
            checkpoint = filename_or_checkpoint
        else:
            read = checkpoints.read_newest_valid if self._resuming else checkpoints.read_this
            checkpoint, path, skipped = read(filename_or_checkpoint, self.device)
            for message in skipped:
                self.print_to_log_file(f"WARNING: {message}")
            self.print_to_log_file(f"Loaded {path}")
        checkpoints.check_compatible(checkpoint, path, self.identity())
        self._restore(checkpoint)

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        semi = checkpoint["semi"]
        self.bare_network.load_state_dict(semi["student"])
        self._companions.load_state_dict(semi["companions"])
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])
        if self.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
        if isinstance(self.lr_scheduler, PlateauSchedule):
            self.lr_scheduler.load_state_dict(semi["schedule"])
        self.logger.load_checkpoint(checkpoint["logging"])
        self.current_epoch, self._best_ema = checkpoint["current_epoch"], checkpoint["_best_ema"]
        self.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]
        self.history, self._best_epoch = History(list(semi["history"])), semi["best_epoch"]
        self._stopped_early = semi["stopped_early"]
        if self._stopped_early:
            self.num_epochs = self.current_epoch  # done: nnU-Net goes on to the validation
        now, then = checkpoints.plain(self.resolved.as_dict()), semi["settings"]
        changed = [
            f"{key}: {then.get(key)} -> {now[key]}" for key in now if then.get(key) != now[key]
        ]
        for kind, cases in self._current_cases().items():
            before = set(semi["cases"].get(kind, cases))
            if before != set(cases):
                changed.append(f"{kind} cases: {len(before)} -> {len(cases)}")
        if changed:
            self.print_to_log_file(
                "WARNING: settings changed since the checkpoint:", "; ".join(changed)
            )

    # ---------------------------------------------------------------- details

    def _labelled_foreground(self, target: Any) -> torch.Tensor:
        """Fraction of foreground among the annotated voxels of the full-resolution target."""
        full = target[0] if isinstance(target, list) else target
        manager = self.label_manager
        if manager.has_regions:
            foreground = (full[:, : manager.num_segmentation_heads] > 0).any(1)
            annotated = (
                ~full[:, -1].bool() if manager.has_ignore_label else torch.ones_like(foreground)
            )
        else:
            annotated = full != manager.ignore_label if manager.has_ignore_label else full >= 0
            foreground = full > 0
        return (foreground & annotated).sum() / annotated.sum().clamp_min(1)


def known_trainers(of: type = SemiTrainer) -> list[str]:
    """Names of the trainers that are imported, which in nnU-Net's commands are all of ours."""
    below = [name for trainer in of.__subclasses__() for name in known_trainers(trainer)]
    return [of.__name__, *below]


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside the wrappers of DDP and torch.compile."""
    while isinstance(network, (DistributedDataParallel, OptimizedModule)):
        is_ddp = isinstance(network, DistributedDataParallel)
        network = network.module if is_ddp else network._orig_mod
    return network
