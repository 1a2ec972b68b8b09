"""The one module that knows nnU-Net's trainer: everything a semi-supervised method does not have to care about.

A method subclasses :class:`SemiTrainer`, names its companions (a teacher, say) and yields its loss terms;
see ``semi_nnunet/methods/mean_teacher.py``. The trainer brings the batches, weighs and back-propagates the
terms, keeps the history, and writes checkpoints from which training resumes exactly.
"""

from __future__ import annotations

import math
import os
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.crossval_split import generate_crossval_split
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import autocast, nn
from torch import distributed as dist
from torch._dynamo import OptimizedModule
from torch.nn.parallel import DistributedDataParallel

import semi_nnunet
from semi_nnunet import checkpoints
from semi_nnunet.augment.intensity import appearance_changes
from semi_nnunet.common_settings import SemiSettings
from semi_nnunet.core.losses import DiceAndVoxelLoss
from semi_nnunet.core.ramps import ramp
from semi_nnunet.data.layout import unlabelled_folder
from semi_nnunet.data.loading import (
    LabelledBatch,
    StepDataset,
    StepLoader,
    UnlabelledBatch,
    UnlabelledSampling,
    geometry_of,
    reproducible,
)
from semi_nnunet.data.manifest import Manifest
from semi_nnunet.data.unlabelled import UnlabelledDataset, foreground_prior
from semi_nnunet.errors import UserError, print_user_errors_plainly
from semi_nnunet.files import write_json
from semi_nnunet.history import History, StepRecords, TensorBoardLogger
from semi_nnunet.optimisation import (
    PlateauSchedule,
    Schedule,
    build_optimizer,
    with_deep_supervision,
)
from semi_nnunet.planning.facts import collect_facts, resolve_settings
from semi_nnunet.seeds import derived_seed

NEVER = 2**31


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
    """An nnU-Net trainer whose loss is the sum of terms that a method yields.

    A method overrides :meth:`companions`, :meth:`terms`, :meth:`after_optimizer_step` and
    :meth:`prediction_network`, and sets ``settings_class``.
    """

    settings_class: ClassVar[type[SemiSettings]] = SemiSettings
    uses_unlabelled: ClassVar[bool] = True

    # ------------------------------------------------------------------ what a method says

    def companions(self) -> dict[str, nn.Module]:
        """Networks beside the student, by name; they are moved, saved and restored for the method."""
        return {}

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch | None) -> Iterable[Term]:
        """The terms of the loss; each is back-propagated and freed before the next one is asked for."""
        raise NotImplementedError

    def after_optimizer_step(self, step: int) -> None:
        """Called after the student's weights changed in optimizer step ``step`` (from 0)."""

    def prediction_network(self) -> nn.Module:
        """The network to validate, save and deploy."""
        return self.bare_network

    # ------------------------------------------------------------------ what a method may use

    @property
    def bare_network(self) -> nn.Module:
        """The student without the wrappers of DDP and torch.compile."""
        return unwrapped(self.network)

    def companion(self, name: str) -> Any:
        """One of the :meth:`companions`."""
        return self._companions[name]

    def supervised(self, labelled: LabelledBatch) -> Term:
        """nnU-Net's loss of the student on the labelled patches."""
        self.records.add("foreground/labelled", self._labelled_foreground(labelled.target))
        return Term(
            "supervised", self.loss(self.network(labelled.x), labelled.target), ramped=False
        )

    def predict(self, x: torch.Tensor) -> torch.Tensor:
        """The student's full-resolution logits (B, classes or regions, *spatial)."""
        output = self.network(x)
        if isinstance(output, torch.Tensor):
            return output
        unused = (
            sum(0.0 * other.sum() for other in output[1:]) if self.is_ddp else 0.0
        )  # DDP wants every head to take part
        return output[0] + unused

    def predict_with(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Full-resolution logits of another network, without gradient."""
        with torch.no_grad():
            output = network(x)
        return output if isinstance(output, torch.Tensor) else output[0]

    def probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities in float32: softmax over classes, or a sigmoid for each region."""
        logits = logits.float()
        return torch.sigmoid(logits) if self.label_manager.has_regions else torch.softmax(logits, 1)

    def strong_view(self, x_weak: torch.Tensor) -> torch.Tensor:
        """The same voxels after random appearance changes; channels of a cascade's previous stage stay."""
        return self._change_appearance(x_weak, self._strong_changes)

    def note_pseudo_labels(self, probs: torch.Tensor, mask: torch.Tensor) -> None:
        """Log how much of the voxels in ``mask`` the pseudo labels call foreground, and how many voxels count."""
        foreground = (
            (probs > 0.5).any(1, keepdim=True)
            if self.label_manager.has_regions
            else probs.argmax(1, keepdim=True) > 0
        )
        self.records.add(
            "foreground/pseudo_label", (foreground & mask).sum() / mask.sum().clamp_min(1)
        )

    # ------------------------------------------------------------------ nnU-Net's seams: set-up

    def __init__(
        self,
        plans: dict,
        configuration: str,
        fold: int,
        dataset_json: dict,
        device: torch.device = torch.device("cuda"),
    ):
        print_user_errors_plainly()
        plans = {
            "continue_training": False,
            **plans,
        }  # nnU-Net takes that key out: not from the caller's dictionary
        super().__init__(plans, configuration, fold, dataset_json, device)
        preprocessed = (
            None
            if self.preprocessed_dataset_folder_base is None
            else Path(self.preprocessed_dataset_folder_base)
        )
        self.facts = collect_facts(plans, configuration, dataset_json, preprocessed)
        self.resolved = resolve_settings(
            self.settings_class, type(self).__name__, configuration, plans, self.facts
        )
        self.settings: Any = self.resolved.settings
        self.num_epochs = self.settings.epochs
        self.num_iterations_per_epoch = self.settings.steps_per_epoch
        self.num_val_iterations_per_epoch = self.settings.validation_steps_per_epoch
        self.initial_lr, self.weight_decay = self.settings.initial_lr, self.settings.weight_decay
        self.enable_deep_supervision = self.settings.deep_supervision
        self.save_every = NEVER  # nnU-Net would save before it knows whether the epoch was the best
        self.configuration_manager.configuration["batch_size"] = self.settings.labelled_batch_size
        self._strong_changes = appearance_changes(self.settings.appearance_strength)
        self._labelled_changes = appearance_changes(
            self.settings.appearance_strength, self.settings.labelled_appearance
        )
        self._companions: nn.ModuleDict | None = None
        self.records, self.history = StepRecords(), History()
        self._unchecked: list[tuple[str, torch.Tensor, tuple[str, ...]]] = []
        self._best_epoch = 0
        self._seconds_per_epoch: list[float] = []
        self._step_in_epoch = 0
        if self.settings.tensorboard:
            self.logger.loggers.append(TensorBoardLogger(Path(self.output_folder) / "tensorboard"))

    def initialize(self) -> None:
        torch.manual_seed(derived_seed(self.settings.seed, "weights"))
        super().initialize()

    def build_companions(self) -> None:
        """Make the companions, from the student as it is now; does nothing the second time."""
        if self._companions is None:
            torch.manual_seed(derived_seed(self.settings.seed, "companions"))
            self._companions = nn.ModuleDict(self.companions()).to(self.device)

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Schedule]:
        return build_optimizer(self.network.parameters(), self.settings)

    def _build_loss(self) -> nn.Module:
        plain_nnunet = (
            self.settings.supervised_loss == "dice_ce" and self.settings.class_weights is None
        )
        if plain_nnunet:
            return super()._build_loss()
        heads = self.label_manager.num_segmentation_heads
        weights = self.settings.class_weights
        if weights is not None and len(weights) != heads:
            raise UserError(
                f"class_weights must have one weight for each of the {heads} classes or regions, got {len(weights)}: {weights}"
            )
        loss = DiceAndVoxelLoss(
            regions=self.label_manager.has_regions,
            ignore_label=self.label_manager.ignore_label,
            batch_dice=self.configuration_manager.batch_dice,
            focal_gamma=self.settings.focal_gamma
            if self.settings.supervised_loss == "dice_focal"
            else 0.0,
            class_weights=weights,
        ).to(self.device)
        if not self.enable_deep_supervision:
            return loss
        return with_deep_supervision(
            loss, len(self._get_deep_supervision_scales()), 1e-6 if self.is_ddp else 0.0
        )

    def _set_batch_size_and_oversample(self) -> None:
        if self.is_ddp and self.settings.labelled_batch_size < dist.get_world_size():
            raise UserError(
                f"labelled_batch_size must be at least the number of GPUs, got {self.settings.labelled_batch_size} for {dist.get_world_size()}. "
                f"Fix: train on fewer GPUs or raise plans['semi']['labelled_batch_size']"
            )
        super()._set_batch_size_and_oversample()

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:
        rotation, dummy_2d, initial_patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if not self.settings.mirror:
            mirror_axes = self.inference_allowed_mirroring_axes = None
        return rotation, dummy_2d, initial_patch_size, mirror_axes

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        decoder = getattr(unwrapped(self.network), "decoder", None)
        if decoder is not None:
            decoder.deep_supervision = enabled

    # ------------------------------------------------------------------ nnU-Net's seams: data

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split; with fewer than five labelled cases, one fold each (nnU-Net fails there)."""
        splits_file = Path(self.preprocessed_dataset_folder_base) / "splits_final.json"
        if self.fold != "all" and not splits_file.exists():
            cases = sorted(
                self._labelled_dataset_class().get_identifiers(self.preprocessed_dataset_folder)
            )
            if len(cases) < 2:
                raise UserError(
                    f"fold {self.fold} needs a validation case besides a training case, found {len(cases)} labelled. Fix: train fold 'all'"
                )
            if len(cases) < 5 and self.local_rank == 0:
                write_json(splits_file, generate_crossval_split(cases, n_splits=len(cases)))
        training, validation = super().do_split()
        if not training:
            raise UserError(
                f"fold {self.fold} of {splits_file} has no training case. Fix: mend the file or choose another fold"
            )
        return training, validation

    def _labelled_dataset_class(self) -> Any:
        if self.dataset_class is None:
            from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class

            self.dataset_class = infer_dataset_class(self.preprocessed_dataset_folder)
        return self.dataset_class

    def get_dataloaders(self) -> tuple[StepLoader, StepLoader]:
        labelled, validation = self._nnunet_loaders()
        streams = {"labelled": labelled}
        if self.uses_unlabelled:
            streams["unlabelled"] = self._unlabelled_loader(labelled)
        workers = get_allowed_n_proc_DA()
        on_gpu = self.device.type == "cuda"
        first = self.current_epoch * self.num_iterations_per_epoch
        training = StepDataset(
            streams, self.settings.seed, self.local_rank, self.settings.accumulate_batches
        )
        checking = StepDataset({"validation": validation}, self.settings.seed, self.local_rank)
        return (
            StepLoader(training, first, workers, on_gpu),
            StepLoader(checking, 0, workers // 2, on_gpu, period=self.num_val_iterations_per_epoch),
        )

    def _nnunet_loaders(self) -> tuple[Any, Any]:
        """nnU-Net's own loaders of the labelled training and validation cases, without its processes."""
        with _no_augmentation_processes():
            training, validation = super().get_dataloaders()
        loaders = training.data_loader, validation.data_loader
        for loader in loaders:
            loader.transforms = reproducible(loader.transforms)
        return loaders

    def _unlabelled_loader(self, labelled: Any) -> UnlabelledSampling:
        """The same crops and geometric augmentation as the labelled stream, on the unlabelled cases."""
        cases = self.unlabelled_cases()
        prior = (
            foreground_prior(labelled._data, labelled._data.identifiers)
            if self.settings.unlabelled_foreground_oversampling
            else {}
        )
        dataset = UnlabelledDataset(
            self.unlabelled_folder, cases, prior, self.folder_with_segs_from_previous_stage
        )
        two_d = labelled.patch_size_was_2d
        return UnlabelledSampling(
            dataset,
            self._share_of_rank(self.settings.unlabelled_batch_size),
            labelled.patch_size[1:] if two_d else labelled.patch_size,
            labelled.final_patch_size[1:] if two_d else labelled.final_patch_size,
            self.label_manager,
            oversample_foreground_percent=self.settings.unlabelled_foreground_oversampling
            if prior
            else 0.0,
            transforms=geometry_of(labelled.transforms),
            probabilistic_oversampling=True,
        )

    @property
    def unlabelled_folder(self) -> Path:
        """The preprocessed unlabelled images of this configuration."""
        return unlabelled_folder(
            self.preprocessed_dataset_folder_base, self.configuration_manager.data_identifier
        )

    def unlabelled_cases(self) -> list[str]:
        """The finished unlabelled cases.

        Raises:
            UserError: there are none, or one of them is also labelled.
        """
        cases = sorted(Manifest(self.unlabelled_folder).present())
        if not cases:
            raise UserError(
                f"{type(self).__name__} needs unlabelled images, found none in {self.unlabelled_folder}. Fix: put them into imagesUn of the raw data set and run "
                f"semi_nnunet preprocess -d {self.plans_manager.dataset_name} -c {self.configuration_name} -p {self.plans_manager.plans_name}"
            )
        labelled = set(
            self._labelled_dataset_class().get_identifiers(self.preprocessed_dataset_folder)
        )
        both = sorted(labelled.intersection(cases))
        if both:
            raise UserError(
                f"a case must be labelled or unlabelled, not both: {', '.join(both)}. Fix: remove it from imagesUn or imagesTr and preprocess again"
            )
        return cases

    def _share_of_rank(self, batch_size: int) -> int:
        if not self.is_ddp:
            return batch_size
        ranks, rank = dist.get_world_size(), dist.get_rank()
        return max(1, batch_size // ranks + (rank < batch_size % ranks))

    # ------------------------------------------------------------------ training

    def run_training(self) -> None:
        try:
            super().run_training()
        except EarlyStop as reason:
            self.print_to_log_file(str(reason))
            self.on_train_end()

    def on_train_start(self) -> None:
        super().on_train_start()
        self.build_companions()
        if self.local_rank == 0:
            self._write_settings()

    def _write_settings(self) -> None:
        """Say what this training is: settings with reasons, facts, versions."""
        record = {
            "trainer": type(self).__name__,
            "semi_nnunet": semi_nnunet.__version__,
            "torch": torch.__version__,
            "labelled_training_cases": list(self.do_split()[0]),
            "unlabelled_cases": len(self.unlabelled_cases()) if self.uses_unlabelled else 0,
            "settings": {
                key: {"value": value, "reason": self.resolved.reasons[key]}
                for key, value in self.resolved.as_dict().items()
            },
        }
        write_json(Path(self.output_folder) / "semi_settings.json", checkpoints.plain(record))
        self.print_to_log_file(
            "semi_nnunet settings:",
            *(f"{key}={value}" for key, value in self.resolved.as_dict().items()),
        )

    @property
    def step(self) -> int:
        """The optimizer step that comes next, from 0."""
        return self.current_epoch * self.num_iterations_per_epoch + self._step_in_epoch

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._step_in_epoch = 0

    def train_step(self, batches: list[dict[str, dict[str, Any]]]) -> dict[str, float]:
        """One optimizer step: the terms of every batch back-propagated one by one, then one update."""
        torch.manual_seed(derived_seed(self.settings.seed, "step", self.step, self.local_rank))
        self.optimizer.zero_grad(set_to_none=True)
        for batch in batches:
            labelled, unlabelled = self._to_device(batch)
            keys = labelled.keys if unlabelled is None else labelled.keys + unlabelled.keys
            terms = iter(self.terms(labelled, unlabelled))
            while (term := self._next_term(terms)) is not None:
                self._back_propagate(term, keys, 1.0 / len(batches))
        self._check_finite(at_once=self.device.type != "cuda")
        self._update_weights()
        self.after_optimizer_step(self.step)
        self._step_in_epoch += 1
        return {
            "loss": 0.0
        }  # the epoch's mean is taken from the records, without a device synchronisation here

    def _to_device(
        self, batch: dict[str, dict[str, Any]]
    ) -> tuple[LabelledBatch, UnlabelledBatch | None]:
        raw = batch["labelled"]
        target = raw["target"]
        x = raw["data"].to(self.device, non_blocking=True)
        target = (
            [t.to(self.device, non_blocking=True) for t in target]
            if isinstance(target, list)
            else target.to(self.device, non_blocking=True)
        )
        labelled = LabelledBatch(
            self._change_appearance(x, self._labelled_changes), target, raw["keys"]
        )
        if "unlabelled" not in batch:
            return labelled, None
        raw = batch["unlabelled"]
        x_weak = raw["data"].to(self.device, non_blocking=True)
        mask = raw["target"].to(self.device, non_blocking=True)[:, :1] >= 0
        return labelled, UnlabelledBatch(x_weak, self.strong_view(x_weak), mask, raw["keys"])

    def _change_appearance(self, x: torch.Tensor, changes: list[Any]) -> torch.Tensor:
        if not changes:
            return x
        channels = len(self.dataset_json.get("channel_names") or self.dataset_json["modality"])
        image, rest = x[:, :channels], x[:, channels:]
        changed = image
        for change in changes:
            changed = change(changed)
        masked = self.configuration_manager.use_mask_for_norm
        if any(masked):  # nnU-Net keeps the outside of such channels at zero
            outside = (image == 0).all(1, keepdim=True) & torch.tensor(
                masked, device=x.device
            ).view(1, -1, *[1] * (x.ndim - 2))
            changed = changed.masked_fill(outside, 0.0)
        return torch.cat([changed, rest], 1) if rest.shape[1] else changed

    def _next_term(self, terms: Iterator[Term]) -> Term | None:
        with (
            autocast(self.device.type, enabled=True)
            if self.device.type == "cuda"
            else nullcontext()
        ):
            return next(terms, None)

    def _back_propagate(self, term: Term, keys: tuple[str, ...], share: float) -> None:
        factor = (
            ramp(self.settings.ramp_up, self.step, self.settings.ramp_up_steps)
            if term.ramped
            else 1.0
        )
        weight = term.weight * factor
        self.records.add(f"loss/{term.name}", term.value)
        self.records.add(f"weight/{term.name}", weight)
        self._unchecked.append((term.name, term.value.detach(), keys))
        if weight == 0.0:
            return
        loss = term.value * (weight * share)
        (loss if self.grad_scaler is None else self.grad_scaler.scale(loss)).backward()

    def _check_finite(self, at_once: bool) -> None:
        """Stop at a term that is NaN or infinite; on a GPU only now and then, because looking makes it wait."""
        if not self._unchecked or not (at_once or len(self._unchecked) >= 100):
            return
        finite = torch.isfinite(
            torch.stack([value.float() for _, value, _ in self._unchecked])
        ).cpu()
        checked, self._unchecked = self._unchecked, []
        for (name, value, keys), good in zip(checked, finite.tolist(), strict=True):
            if not good:
                raise UserError(
                    f"training stopped in epoch {self.current_epoch}: the term {name!r} became {value.item()} on the cases {', '.join(keys)}. "
                    f"The checkpoints written before are intact. Fix: check these images (semi_nnunet preprocess verifies them) and the "
                    f"learning rate, then continue with --c"
                )

    def _update_weights(self) -> None:
        if self.grad_scaler is not None:
            self.grad_scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.settings.gradient_clip)
        if self.grad_scaler is not None:
            self.grad_scaler.step(self.optimizer)
            self.grad_scaler.update()
        else:
            self.optimizer.step()

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        self._check_finite(at_once=True)
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
        return {
            key: float(np.mean([part[key] for part in gathered if key in part])) for key in means
        }

    # ------------------------------------------------------------------ validation

    @contextmanager
    def deployed(self) -> Iterator[None]:
        """Inside the block, ``self.network`` is the network that would be deployed."""
        student = self.network
        if self.prediction_network() is not self.bare_network:
            self.network = self.prediction_network()
        try:
            yield
        finally:
            self.network = student

    def validation_step(self, batches: list[dict[str, dict[str, Any]]]) -> dict[str, Any]:
        batch = batches[0]["validation"]
        outputs = {}
        if self.prediction_network() is not self.bare_network:
            target = (
                [t.clone() for t in batch["target"]]
                if isinstance(batch["target"], list)
                else batch["target"].clone()
            )
            student = super().validation_step(
                {**batch, "target": target}
            )  # nnU-Net overwrites the target's ignore label
            outputs = {f"student_{key}": student[key] for key in ("tp_hard", "fp_hard", "fn_hard")}
        with self.deployed():
            return {**super().validation_step(batch), **outputs}

    def on_validation_epoch_end(self, val_outputs: list[dict]) -> None:
        if "student_tp_hard" in val_outputs[0]:
            tp, fp, fn = (
                np.sum([output[f"student_{key}_hard"] for output in val_outputs], 0)
                for key in ("tp", "fp", "fn")
            )
            with np.errstate(invalid="ignore"):
                self._epoch_values["dice/student"] = float(np.nanmean(2 * tp / (2 * tp + fp + fn)))
        keys = [key for key in val_outputs[0] if not key.startswith("student_")]
        with np.errstate(invalid="ignore"):
            super().on_validation_epoch_end(
                [{key: output[key] for key in keys} for output in val_outputs]
            )
        self._epoch_values["dice/deployed"] = float(self.logger.get_value("mean_fg_dice", step=-1))

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        self.build_companions()
        with self.deployed():
            super().perform_actual_validation(save_probabilities)

    # ------------------------------------------------------------------ end of an epoch

    def on_epoch_start(self) -> None:
        super().on_epoch_start()
        self._epoch_started = time.monotonic()

    def on_epoch_end(self) -> None:
        epoch, best_before = self.current_epoch, self._best_ema
        self._log_epoch(epoch)
        super().on_epoch_end()  # saves checkpoint_best and counts the epoch
        if self._best_ema != best_before:
            self._best_epoch = epoch
        if (epoch + 1) % self.settings.save_every_epochs == 0 and epoch + 1 < self.num_epochs:
            self._write_checkpoint(
                Path(self.output_folder) / "checkpoint_latest.pth", next_epoch=epoch + 1
            )
        patience = self.settings.early_stopping_patience_epochs
        if patience and epoch - self._best_epoch >= patience:
            raise EarlyStop(
                f"Early stop: no better moving-average Dice than {self._best_ema:.4f} (epoch {self._best_epoch}) for {patience} epochs"
            )

    def _log_epoch(self, epoch: int) -> None:
        self.history.add(
            epoch,
            {**self._epoch_values, "seconds": round(time.monotonic() - self._epoch_started, 2)},
        )
        for key, value in self._epoch_values.items():
            for logger in self.logger.loggers:
                logger.log(f"semi/{key}", value, epoch)
        self._warn_of_collapse()
        self._print_time_left(epoch)
        if self.local_rank == 0:
            self.history.write_csv(Path(self.output_folder) / "semi_history.csv")
            self.history.write_picture(Path(self.output_folder) / "semi_history.png")

    def _warn_of_collapse(self) -> None:
        pseudo, labelled = (
            self._epoch_values.get(f"foreground/{which}") for which in ("pseudo_label", "labelled")
        )
        if (
            pseudo is not None
            and labelled
            and pseudo < 0.01 * labelled
            and self.step > self.settings.ramp_up_steps / 2
        ):
            self.print_to_log_file(
                f"WARNING: the pseudo labels have nearly no foreground ({pseudo:.2e} of the voxels; the labels have {labelled:.2e}): the teacher collapses. "
                f"Lower the weight of the unlabelled term, lengthen ramp_up_steps, or check that the unlabelled images show the same organs"
            )

    def _print_time_left(self, epoch: int) -> None:
        self._seconds_per_epoch = [
            *self._seconds_per_epoch[-9:],
            time.monotonic() - self._epoch_started,
        ]
        left = (self.num_epochs - epoch - 1) * float(np.mean(self._seconds_per_epoch))
        self.print_to_log_file(
            f"{epoch + 1} of {self.num_epochs} epochs done, about {readable_time(left)} left"
        )

    # ------------------------------------------------------------------ checkpoints

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
        scaler = self.grad_scaler
        checkpoint = {
            "network_weights": self.prediction_network().state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": None if scaler is None else scaler.state_dict(),
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
                "companions": {} if self._companions is None else self._companions.state_dict(),
                "schedule": self.lr_scheduler.state_dict()
                if isinstance(self.lr_scheduler, PlateauSchedule)
                else None,
                "history": self.history.rows,
                "best_epoch": self._best_epoch,
            },
        }
        checkpoints.save(checkpoint, path)

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Continue from a file (or the newest valid one of its folder, if it is damaged) or a checkpoint's content."""
        if not self.was_initialized:
            self.initialize()
        path: str | Path = "the given checkpoint"
        if isinstance(filename_or_checkpoint, dict):
            checkpoint = filename_or_checkpoint
        else:
            checkpoint, path, skipped = checkpoints.read_newest_valid(
                filename_or_checkpoint, self.device
            )
            for message in skipped:
                self.print_to_log_file(f"WARNING: {message}")
            self.print_to_log_file(f"Continuing from {path}")
        checkpoints.check_compatible(checkpoint, path, self.identity())
        self._restore(checkpoint)

    def _restore(self, checkpoint: dict[str, Any]) -> None:
        semi = checkpoint["semi"]
        self.bare_network.load_state_dict(semi["student"])
        self.build_companions()
        self._companions.load_state_dict(semi["companions"])  # type: ignore[union-attr]
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])
        if self.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
        if isinstance(self.lr_scheduler, PlateauSchedule):
            self.lr_scheduler.load_state_dict(semi["schedule"])
        self.logger.load_checkpoint(checkpoint["logging"])
        self.current_epoch, self._best_ema = checkpoint["current_epoch"], checkpoint["_best_ema"]
        self.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]
        self.history, self._best_epoch = History(list(semi["history"])), semi["best_epoch"]
        now, then = checkpoints.plain(self.resolved.as_dict()), semi["settings"]
        changed = [
            f"{key}: {then.get(key)!r} -> {value!r}"
            for key, value in now.items()
            if then.get(key) != value
        ]
        if changed:
            self.print_to_log_file(
                "WARNING: settings have changed since the checkpoint was written:",
                "; ".join(changed),
            )

    # ------------------------------------------------------------------ details

    def _labelled_foreground(self, target: Any) -> torch.Tensor:
        """Fraction of foreground among the annotated voxels of the full-resolution target."""
        full = target[0] if isinstance(target, list) else target
        if self.label_manager.has_regions:
            ignored = (
                full[:, -1:].bool()
                if self.label_manager.has_ignore_label
                else torch.zeros_like(full[:, :1], dtype=torch.bool)
            )
            regions = full[:, : self.label_manager.num_segmentation_heads]
            return ((regions > 0).any(1, keepdim=True) & ~ignored).sum() / (
                ~ignored
            ).sum().clamp_min(1)
        annotated = full != (
            self.label_manager.ignore_label if self.label_manager.has_ignore_label else -1
        )
        return ((full > 0) & annotated).sum() / annotated.sum().clamp_min(1)


def unwrapped(network: nn.Module) -> nn.Module:
    """The network inside the wrappers of DDP and torch.compile."""
    while isinstance(network, (DistributedDataParallel, OptimizedModule)):
        network = (
            network.module if isinstance(network, DistributedDataParallel) else network._orig_mod
        )
    return network


def readable_time(seconds: float) -> str:
    """ "45 s", "12 min" or "3.5 h"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{math.ceil(seconds / 60)} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@contextmanager
def _no_augmentation_processes() -> Iterator[None]:
    """nnU-Net starts loader processes unless told otherwise by a variable; ours start later, by torch's DataLoader."""
    before = os.environ.get("nnUNet_n_proc_DA")
    os.environ["nnUNet_n_proc_DA"] = "0"
    try:
        yield
    finally:
        if before is None:
            del os.environ["nnUNet_n_proc_DA"]
        else:
            os.environ["nnUNet_n_proc_DA"] = before
