"""An nnU-Net trainer that can be repeated and continued exactly.

Nothing here is about unlabelled images: settings from the plans, batches that follow from the step,
checkpoints written whole, a history, early stopping, a watch for values that are no numbers. This
module and :mod:`semi_nnunet.training.trainer` are the only ones that know nnU-Net's trainer.
"""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Iterable
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from nnunetv2.training.data_augmentation.compute_initial_patch_size import get_patch_size
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from nnunetv2.utilities.ddp_allgather import AllGatherGrad
from nnunetv2.utilities.default_n_proc_DA import get_allowed_n_proc_DA
from torch import distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import semi_nnunet
from semi_nnunet.core.losses import DiceAndVoxelLoss
from semi_nnunet.data.loading import StepDataset, StepLoader, reproducible
from semi_nnunet.data.patients import (
    PatientOf,
    by_patient,
    make_folds,
    patient_finder,
    require_whole,
)
from semi_nnunet.data.sampling import pseudo_labelled_cases, sampling_probabilities
from semi_nnunet.networks.average import deep_supervision_switches
from semi_nnunet.networks.frozen import unwrapped
from semi_nnunet.planning.properties import collect_facts, resolve_settings
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.training import checkpoints
from semi_nnunet.training.cascade import require_predictions
from semi_nnunet.training.history import History, StepRecords
from semi_nnunet.training.non_finite import FiniteWatch, TimeLeft
from semi_nnunet.training.optimisation import (
    PlateauSchedule,
    Schedule,
    build_optimizer,
    with_deep_supervision,
)
from semi_nnunet.training.precision import compute_dtype, slow_dtype_warning
from semi_nnunet.training.trackers import MlflowTracker, TensorBoardTracker, Tracker
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import UserError, print_user_errors_plainly
from semi_nnunet.util.files import read_json, remove_leftovers, write_json
from semi_nnunet.util.seeds import derived_seed

NEVER = 2**31
NNUNET_SCALES = (0.85, 1.25)  # from which nnU-Net works out how large a patch to rotate and scale


class EarlyStop(Exception):
    """The validation Dice has not risen for the stated number of epochs."""


class ReproducibleTrainer(nnUNetTrainer):
    """nnU-Net's training of one network, step by step a function of settings, data and seed.

    A subclass says what a step is (``train_step``, ``validation_step``, for the batches of
    :class:`~semi_nnunet.data.loading.StepDataset`), and may add streams of batches
    (:meth:`streams`), networks (:meth:`trained_networks`) and state (:meth:`checkpoint_content`,
    :meth:`restore`).
    """

    settings_class: ClassVar[type[SemiSettings]] = SemiSettings

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
        self._resuming = plans.get("continue_training", True)  # nnU-Net says False with --val
        self._stopped_early = self._restoring = False
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
        if self.mixed_precision_dtype is not torch.float16:
            self.grad_scaler = None  # only float16 has gradients too small for it
        self._trackers = self._make_trackers() if self.local_rank == 0 else []
        self.logger.loggers += self._trackers

    def _make_trackers(self) -> list[Tracker]:
        folder, found = Path(self.output_folder), list[Tracker]()
        if self.settings.tensorboard:
            found.append(TensorBoardTracker(folder, self.logger.resume))
        if self.settings.mlflow:
            run, experiment = f"{folder.parent.name} {folder.name}", self.plans_manager.dataset_name
            found.append(
                MlflowTracker(folder, experiment, run, self.logger.resume, folder.parents[2])
            )
        for tracker in found:
            tracker.update_config(self.resolved.as_dict())
        return found

    def initialize(self) -> None:
        torch.manual_seed(derived_seed(self.settings.seed, "weights"))
        super().initialize()
        if isinstance(self.network, DistributedDataParallel):
            # the gradients of all terms are averaged once a step (average_gradients); DDP would do
            # so in every backward pass, for one network, and wants all its parameters used
            self.network = self.network.module
        self.load_pretrained(self.network)

    def load_pretrained(self, network: nn.Module) -> None:
        """Load the weights that a plan wants an encoder to begin with; not if a checkpoint does."""
        load = getattr(unwrapped(network), "load_pretrained", None)
        if load is not None and not self._restoring:
            load()

    def trained_networks(self) -> list[nn.Module]:
        """Every network that takes a gradient."""
        return [self.network]

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Schedule]:
        parameters = [p for network in self.trained_networks() for p in network.parameters()]
        return build_optimizer(parameters, self.settings)

    def _build_loss(self) -> nn.Module:
        weights = self.class_weights()
        if self.settings.supervised_loss == "dice_ce" and weights is None:
            return super()._build_loss()
        loss = DiceAndVoxelLoss(
            regions=self.label_manager.has_regions,
            ignore_label=self.label_manager.ignore_label,
            batch_dice=self.configuration_manager.batch_dice,
            focal_gamma=self.settings.focal_gamma
            if "focal" in self.settings.supervised_loss
            else 0.0,
            class_weights=weights,
            sum_over_ranks=sum_over_ranks if self.is_ddp else None,
        ).to(self.device)
        if not self.enable_deep_supervision:
            return loss
        scales = len(self._get_deep_supervision_scales())
        return with_deep_supervision(loss, scales)

    def class_weights(self) -> Any:
        """Of the loss: None, a number for each class or region, or what returns them.

        Raises:
            UserError: not as many numbers as classes.
        """
        weights, heads = self.settings.class_weights, self.label_manager.num_segmentation_heads
        if weights is not None and len(weights) != heads:
            raise UserError(
                f"class_weights must be one number for each of the {heads} classes (background "
                f"included) or regions, got {len(weights)}: {weights}. Fix: correct plans['semi']"
            )
        return weights

    def _set_batch_size_and_oversample(self) -> None:
        if self.is_ddp:
            ranks, size = dist.get_world_size(), self.settings.labelled_batch_size
            gathers = self.configuration_manager.batch_dice  # nnU-Net's gathering wants equal parts
            if size < ranks or (gathers and size % ranks):
                what = "a multiple of" if gathers else "at least"
                raise UserError(
                    f"labelled_batch_size must be {what} the number of GPUs, {ranks}, got {size}. "
                    f"Fix: train on fewer GPUs or change it in plans['semi']"
                )
        super()._set_batch_size_and_oversample()

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:
        rotation, flat, first_patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if not self.settings.mirror:
            mirror_axes = self.inference_allowed_mirroring_axes = None
        limit = math.radians(self.settings.max_rotation_degrees)
        if limit < max(rotation[1], -rotation[0]):
            rotation = (max(rotation[0], -limit), min(rotation[1], limit))
            patch_size = self.configuration_manager.patch_size
            first_patch_size = get_patch_size(patch_size, *[rotation] * 3, NNUNET_SCALES)
            if flat:  # rotated in the plane only
                first_patch_size[0] = patch_size[0]
        return rotation, flat, first_patch_size, mirror_axes

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        for switch in deep_supervision_switches(unwrapped(self.network)):
            switch.deep_supervision = enabled

    @property
    def mixed_precision_dtype(self) -> torch.dtype | None:
        """What the networks compute in, where that is not their weights' float32."""
        return compute_dtype(self.settings.mixed_precision, self.device)

    @property
    def bare_network(self) -> nn.Module:
        """The student without the wrapper of torch.compile."""
        return unwrapped(self.network)

    # ---------------------------------------------------------------- nnU-Net's seams: data

    @property
    def preprocess_command(self) -> str:
        """What makes the preprocessed cases."""
        where = f"-c {self.configuration_name} -p {self.plans_manager.plans_name}"
        return f"semi_nnunet preprocess -d {self.plans_manager.dataset_name} {where}"

    def labelled_identifiers(self) -> list[str]:
        """Every preprocessed labelled case.

        Raises:
            UserError: the configuration is not preprocessed.
        """
        if not Path(self.preprocessed_dataset_folder).is_dir():
            raise UserError(
                f"{self.configuration_name} is not preprocessed, there is no "
                f"{self.preprocessed_dataset_folder}. Fix: {self.preprocess_command}"
            )
        if self.dataset_class is None:
            self.dataset_class = infer_dataset_class(self.preprocessed_dataset_folder)
        return sorted(self.dataset_class.get_identifiers(self.preprocessed_dataset_folder))

    def do_split(self) -> tuple[list[str], list[str]]:
        """nnU-Net's split, of whole patients; fewer than five of them get one fold each.

        The file is written here, whole, because one DDP process may read what another writes.
        """
        splits_file = Path(self.preprocessed_dataset_folder_base) / "splits_final.json"
        cases = self.labelled_identifiers()
        if self.fold != "all" and not splits_file.exists():
            pseudo_labelled = pseudo_labelled_cases(self.preprocessed_dataset_folder_base)
            folds = make_folds(cases, self.patient_of, pseudo_labelled)
            if not folds:
                raise UserError(
                    f"fold {self.fold} needs a training and a validation patient, found "
                    f"{len(cases)} labelled cases of {len(by_patient(cases, self.patient_of))}. "
                    f"Fix: train fold 'all'"
                )
            write_json(splits_file, folds)
        if self.fold != "all" and self.fold >= (count := len(read_json(splits_file))):
            raise UserError(
                f"{splits_file} has {count} folds, but fold {self.fold} was asked for (nnU-Net "
                f"would split at random). Fix: "
                + (f"choose one of 0 to {count - 1}, or 'all'" if count else "train fold 'all'")
            )
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
        if self.fold != "all":
            fold = {"train": training, "val": validation}
            require_whole(splits_file, self.fold, fold, self.patient_of)
        return training, validation

    @cached_property
    def patient_of(self) -> PatientOf:
        """Case -> its patient, as dataset.json says."""
        return patient_finder(self.dataset_json)

    def command_of_previous_stage(self) -> str:
        """What to run where the previous stage of a cascade is missing."""
        stage = self.configuration_manager.previous_stage_name
        where = f"{self.plans_manager.dataset_name} {stage} FOLD -tr {type(self).__name__}"
        return f"train every fold of it: nnUNetv2_train {where}"

    def get_dataloaders(self) -> tuple[StepLoader, StepLoader]:
        previous = self.folder_with_segs_from_previous_stage
        training_cases, validation_cases = self.do_split()
        require_predictions(
            previous, [*training_cases, *validation_cases], self.command_of_previous_stage()
        )
        with variable("nnUNet_n_proc_DA", "0"):  # nnU-Net starts no loaders; ours start later
            training, validation = (part.data_loader for part in super().get_dataloaders())
        for loader in (training, validation):
            loader.transforms = reproducible(loader.transforms)
        training.sampling_probabilities = sampling_probabilities(
            training.indices,
            pseudo_labelled_cases(self.preprocessed_dataset_folder_base),
            self.settings.labelled_share,
        )
        seed, rank = self.settings.seed, self.local_rank
        workers, on_gpu = get_allowed_n_proc_DA(), self.device.type == "cuda"
        streams, parts = self.streams(training), self.settings.accumulate_batches
        steps = StepDataset(streams, seed, rank, parts)
        checks = StepDataset({"validation": validation}, seed, rank)
        first = self.current_epoch * self.num_iterations_per_epoch
        return (
            StepLoader(steps, first, workers, on_gpu),
            StepLoader(checks, 0, workers // 2, on_gpu, period=self.num_val_iterations_per_epoch),
        )

    def streams(self, labelled: Any) -> dict[str, Any]:
        """Name -> nnU-Net loader of each stream of a batch; ``labelled`` is nnU-Net's own."""
        return {"labelled": labelled}

    def current_cases(self) -> dict[str, list[str]]:
        """The cases this training uses, by kind."""
        return {"labelled": [str(case) for case in self.do_split()[0]]}

    # ---------------------------------------------------------------- training

    def run_training(self) -> None:
        try:
            super().run_training()
        except EarlyStop as reason:
            self.print_to_log_file(str(reason))
            self._stopped_early = True
            self.on_train_end()
        except ValueError as error:
            if "more than 1 value per channel" not in str(error):  # torch's batch normalisation
                raise
            raise UserError(
                "this network normalises over the batch what it pools to one value, and needs at "
                "least 2 patches of each kind on each GPU, got 1. Fix: raise labelled_batch_size "
                "and unlabelled_batch_size in plans['semi'], or train on fewer GPUs"
            ) from error

    def on_train_start(self) -> None:
        super().on_train_start()
        self._cases = self.current_cases()
        if self.local_rank == 0:
            remove_leftovers(self.output_folder)
            self._write_settings()
            if warning := slow_dtype_warning(self.mixed_precision_dtype, self.device):
                self.print_to_log_file(warning)

    def on_train_end(self) -> None:
        super().on_train_end()
        self._close_loaders()
        for tracker in self._trackers:
            tracker.close()

    def restart_loaders(self) -> None:
        """Make the batches of the coming steps anew: the cases have changed."""
        self._close_loaders()
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        self._cases = self.current_cases()

    def _close_loaders(self) -> None:
        for loader in (self.dataloader_train, self.dataloader_val):
            loader.close()

    def _write_settings(self) -> None:
        """Say what this training is: settings with reasons, cases, versions."""
        values, reasons = self.resolved.as_dict(), self.resolved.reasons
        record = {
            "trainer": type(self).__name__,
            "semi_nnunet": semi_nnunet.__version__,
            "nnunetv2": version("nnunetv2"),
            "torch": torch.__version__,
            "python": platform.python_version(),
            "cases": self._cases,
            "settings": {
                key: {"value": value, "reason": reasons[key]} for key, value in values.items()
            },
        }
        write_json(Path(self.output_folder) / "semi_settings.json", checkpoints.plain(record))
        self.print_to_log_file("semi_nnunet:", *(f"{key}={value}" for key, value in values.items()))

    @property
    def step(self) -> int:
        """The optimizer step that is under way or comes next, from 0."""
        return self.current_epoch * self.num_iterations_per_epoch + self._step_in_epoch

    @property
    def total_steps(self) -> int:
        """Optimizer steps of the whole training."""
        return self.num_epochs * self.num_iterations_per_epoch

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._step_in_epoch = 0

    def on_train_epoch_end(self, train_outputs: list[dict]) -> None:
        self.watch.look(now=True)
        means = self.mean_over_ranks(self.records.means())
        names = [key.removeprefix("loss/") for key in means if key.startswith("loss/")]
        total = sum(means[f"loss/{name}"] * means[f"weight/{name}"] for name in names)
        self._epoch_values = {"learning_rate": self.optimizer.param_groups[0]["lr"], **means}
        if isinstance(self.lr_scheduler, PlateauSchedule):
            self.lr_scheduler.observe(total)
        self.logger.log("train_losses", total, self.current_epoch)

    def mean_over_ranks(self, means: dict[str, float]) -> dict[str, float]:
        """Each value averaged over the DDP processes."""
        if not self.is_ddp:
            return means
        gathered: list[Any] = [None] * dist.get_world_size()
        dist.all_gather_object(gathered, means)
        return {key: float(np.mean([part[key] for part in gathered])) for key in means}

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
        if self.local_rank == 0 and not self.disable_checkpointing:
            checkpoints.save(self.checkpoint_content(next_epoch), path)

    def checkpoint_content(self, next_epoch: int) -> dict[str, Any]:
        """nnU-Net's keys, and under "semi" what resuming exactly needs beyond them."""
        scaler, schedule = self.grad_scaler, self.lr_scheduler
        plateau = schedule.state_dict() if isinstance(schedule, PlateauSchedule) else None
        return {
            "network_weights": self.bare_network.state_dict(),
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
                "schedule": plateau,
                "history": self.history.rows,
                "best_epoch": self._best_epoch,
                "stopped_early": self._stopped_early,
                "cases": self._cases,
            },
        }

    def load_checkpoint(self, filename_or_checkpoint: dict | str) -> None:
        """Continue from a checkpoint's content, or from a file.

        Where the file is damaged, from the most advanced readable checkpoint of its folder.
        """
        self._restoring = True
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
        self.restore(checkpoint)

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Take over the content of a checkpoint."""
        semi = checkpoint["semi"]
        self.bare_network.load_state_dict(semi["student"])
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
        self._name_changes(semi)

    def _name_changes(self, semi: dict[str, Any]) -> None:
        """Warn of settings and cases that are no longer those of the checkpoint."""
        now, then = checkpoints.plain(self.resolved.as_dict()), semi["settings"]
        changed = [
            f"{key}: {then.get(key)} -> {now[key]}" for key in now if then.get(key) != now[key]
        ]
        for kind, cases in self.current_cases().items():
            before = set(semi["cases"].get(kind, cases))
            if before != set(cases):
                changed.append(f"{kind} cases: {len(before)} -> {len(cases)}")
        if changed:
            self.print_to_log_file(
                "WARNING: settings changed since the checkpoint:", "; ".join(changed)
            )


def average_gradients(networks: Iterable[nn.Module]) -> None:
    """Average the gradients over the DDP processes, in one message."""
    gradients = [p.grad for net in networks for p in net.parameters() if p.grad is not None]
    together = torch.cat([gradient.flatten() for gradient in gradients])
    dist.all_reduce(together)
    together /= dist.get_world_size()
    for gradient, part in zip(
        gradients, together.split([gradient.numel() for gradient in gradients]), strict=True
    ):
        gradient.copy_(part.view_as(gradient))


def sum_over_ranks(x: torch.Tensor) -> torch.Tensor:
    """``x`` added up over the DDP processes, with its gradient."""
    return AllGatherGrad.apply(x).sum(0)


def known_trainers(
    of: type[ReproducibleTrainer] = ReproducibleTrainer,
) -> dict[str, type[SemiSettings]]:
    """Settings class of each imported method, which in nnU-Net's commands are all of ours."""
    terms = getattr(of, "terms", None)  # the classes that methods share have none of their own
    is_method = terms is not None and not getattr(terms, "__isabstractmethod__", False)
    known = {of.__name__: of.settings_class} if is_method else {}
    for trainer in of.__subclasses__():
        known |= known_trainers(trainer)
    return known
