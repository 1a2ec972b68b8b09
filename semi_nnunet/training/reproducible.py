"""An nnU-Net trainer that can be repeated and continued exactly.

It does not know about unlabelled images: settings from the plans, batches as a function of the
step, atomic checkpoints, a history, early stopping, a check for values that are not finite. Only
the three base classes (this one, :class:`~semi_nnunet.training.companions.CompanionTrainer` and
:class:`~semi_nnunet.training.trainer.SemiTrainer`) override methods of nnU-Net; the work is done by
classes that know no trainer.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from nnunetv2.training.dataloading.nnunet_dataset import infer_dataset_class
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer
from torch import nn

import semi_nnunet
from semi_nnunet.core.devices import choose_device
from semi_nnunet.loading.stage_predictions import require_predictions
from semi_nnunet.loading.steps import StepLoader
from semi_nnunet.networks.average import find_deep_supervision_modules
from semi_nnunet.networks.frozen import unwrap_compiled
from semi_nnunet.planning.properties import NOT_FOLLOWED, collect_properties, resolve_settings
from semi_nnunet.planning.teaching import collect_idle_inputs
from semi_nnunet.preprocessing.cases import (
    PreprocessingSpec,
    find_outdated_problems,
    find_stale_cases,
)
from semi_nnunet.preprocessing.manifest import Manifest, forget_lists, read_sources
from semi_nnunet.raw.folds import PatientOf, build_patient_finder, describe_left_out
from semi_nnunet.raw.layout import DATASET_JSON, SPLITS_FILE
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.settings.methods import list_method_settings
from semi_nnunet.settings.schema import keep_earlier_behaviour
from semi_nnunet.training import checkpoints
from semi_nnunet.training.cases import require_fold, require_usable_split
from semi_nnunet.training.distributed import Ranks, select_device, without_ddp_wrapper
from semi_nnunet.training.initial_weights import (
    LEARNED_BEFORE,
    InitialWeights,
    find_continued_weights,
    find_initial_weights,
    list_learned_cases,
    require_unseen_patients,
)
from semi_nnunet.training.interruptions import (
    EpochProgress,
    Preemption,
    raise_if_batch_too_small,
    raise_if_machine_fault,
    tolerate_compiler_errors,
)
from semi_nnunet.training.loaders import build_step_loaders, limit_rotation, make_repeatable
from semi_nnunet.training.losses import build_supervised_loss, read_class_weights, uses_nnunet_loss
from semi_nnunet.training.one_launch import lock_fold, require_requested_names
from semi_nnunet.training.optimisation import (
    Schedule,
    build_optimizer,
    get_schedule_state,
    restore_schedule,
    update_schedule,
    wrap_deep_supervision,
)
from semi_nnunet.training.precision import compute_dtype, describe_slow_dtype
from semi_nnunet.training.run_log import RunLog
from semi_nnunet.training.step_records import NonFiniteWatch, total_loss
from semi_nnunet.util.environment import variable
from semi_nnunet.util.errors import Problem, UserError, install_error_hook, raise_if_any
from semi_nnunet.util.files import read_json
from semi_nnunet.util.names import format_count, list_first
from semi_nnunet.util.seeds import derived_seed
from semi_nnunet.util.verb_commands import suggest_command
from semi_nnunet.verify.twins import join_known_twins


class ReproducibleTrainer(nnUNetTrainer):
    """nnU-Net's training of one network, in which each step follows from settings, data and seed.

    A subclass defines the steps (``train_step``, ``validation_step``, for the batches of
    :class:`~semi_nnunet.loading.steps.StepDataset`), and may add streams of batches
    (:meth:`streams`), networks (:meth:`trained_networks`) and state (:meth:`checkpoint_content`,
    :meth:`restore`). A base class of methods is declared with ``is_method=False``.
    """

    settings_class: ClassVar[type[SemiSettings]] = SemiSettings
    methods: ClassVar[dict[str, type[SemiSettings]]] = {}  # imported trainer -> its settings

    network: nn.Module  # nnU-Net declares these without their types
    device: torch.device
    dataset_class: Any
    dataloader_train: StepLoader
    dataloader_val: StepLoader
    print_to_log_file: Callable[..., None]

    def __init_subclass__(cls, is_method: bool = True, **options: Any) -> None:
        super().__init_subclass__(**options)
        if is_method:
            ReproducibleTrainer.methods[cls.__name__] = cls.settings_class

    # ---------------------------------------------------------------- set-up

    def __init__(
        self,
        plans: dict[str, Any],
        configuration: str,
        fold: int,
        dataset_json: dict[str, Any],
        device: torch.device = torch.device("cuda"),  # noqa: B008
    ):
        install_error_hook()
        tolerate_compiler_errors()
        require_requested_names(plans)
        plans_copy = {"continue_training": False, **plans}  # nnU-Net removes that key
        super().__init__(plans_copy, configuration, fold, dataset_json, device)
        self.device = select_device(device, self.device)
        base, trainer = self.preprocessed_dataset_folder_base, type(self).__name__
        properties = collect_properties(plans, configuration, dataset_json, base and Path(base))
        self.resolved = resolve_settings(
            self.settings_class,
            trainer,
            configuration,
            plans,
            properties,
            {**list_method_settings(), **self.methods},  # a user's file may import one of ours only
        )
        self.settings: Any = self.resolved.settings
        self.ranks = Ranks.from_training(self.is_ddp)
        self.patient_of: PatientOf = build_patient_finder(dataset_json)
        self.commands = SuggestedCommands(
            self.plans_manager.dataset_name,
            self.plans_manager.plans_name,
            configuration,
            trainer,
            self.configuration_manager.previous_stage_name,
        )
        self.say = lambda *words: self.print_to_log_file(*words)
        self.run_log = RunLog(self.resolved, self.say, self.device, self.ranks.world_size)
        self.records, self.history = self.run_log.records, self.run_log.history
        self.non_finite = NonFiniteWatch(at_once=self.device.type == "cpu")
        self.resuming = plans.get("continue_training", True)  # False with nnU-Net's --val
        self._stopped_early = self.is_restoring = self._has_split = False
        self._cases: dict[str, list[str]] = {}
        self._sources: dict[str, dict[str, str]] = {}
        self.preemption = Preemption(self.ranks)
        self.checkpoint_writer = checkpoints.CheckpointWriter()
        self.epoch_progress = EpochProgress(self.ranks, {"records": self.records})
        self._best_epoch = self.step_in_epoch = 0
        self._apply_settings()
        self._open_trackers()

    def _apply_settings(self) -> None:
        """Set nnU-Net's attributes from the settings."""
        settings = self.settings
        self.num_epochs, self.num_iterations_per_epoch = settings.epochs, settings.steps_per_epoch
        self.num_val_iterations_per_epoch = settings.validation_steps_per_epoch
        self.initial_lr, self.weight_decay = settings.initial_lr, settings.weight_decay
        outputs = len(self.configuration_manager.pool_op_kernel_sizes) - 1
        self.enable_deep_supervision = settings.deep_supervision and outputs > 1  # nnU-Net: 0 / 0
        self.save_every = 2**31  # nnU-Net would save before it knows whether the epoch is the best
        self.configuration_manager.configuration["batch_size"] = settings.labelled_batch_size
        if compute_dtype(settings.mixed_precision, self.device) is not torch.float16:
            self.grad_scaler = None  # only float16 needs gradients to be scaled

    def _open_trackers(self) -> None:
        """Send the values of every epoch to the trackers that the settings name."""
        self.logger.plot_progress_png = self.run_log.guard_picture(self.logger.plot_progress_png)
        if self.ranks.rank == 0:
            folder, dataset = Path(self.output_folder), self.plans_manager.dataset_name
            self.logger.loggers += self.run_log.open_trackers(folder, dataset, self.logger.resume)

    def initialize(self) -> None:
        choose_device(self.device.type, option="-device")
        torch.manual_seed(derived_seed(self.settings.seed, "weights"))
        model, trainer = Path(self.output_folder_base), type(self).__name__
        pretrained = None if self.is_restoring else self.settings.pretrained
        continued = None if self.is_restoring else self.settings.continue_from
        self.initial_weights = InitialWeights(
            find_initial_weights(pretrained, model, trainer, self.commands.pretrain)
            if continued is None
            else find_continued_weights(continued, pretrained, self.fold, model.parents[1]),
            lambda outputs: self.build_network_architecture(
                self.plans_manager, self.configuration_manager, self.num_input_channels, outputs,
                self.enable_deep_supervision,
            ),
            self.say,
            continued is not None,
            self.plans_manager.dataset_name,
        )  # fmt: skip
        with without_ddp_wrapper():
            super().initialize()
        checkpoints.check_pretrained_weights()
        if continued is not None:
            self.initial_weights.continue_student(self.network)
        elif not self.is_restoring:
            self.initial_weights.load_into(self.network)
        self.identity = checkpoints.describe_training(
            self.plans_manager,
            trainer,
            self.configuration_name,
            self.fold,
            self.num_input_channels,
            self.label_manager.num_segmentation_heads,
        )

    def trained_networks(self) -> list[nn.Module]:
        """Return all networks that take a gradient."""
        return [self.network]

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Schedule]:
        parameters = [p for network in self.trained_networks() for p in network.parameters()]
        return build_optimizer(parameters, self.settings)

    def class_weights(self) -> Any:
        """Return the loss's weights: None, one for each class or region, or a function of them."""
        return read_class_weights(self.settings, self.label_manager.num_segmentation_heads)

    def _build_loss(self) -> nn.Module:
        weights = self.class_weights()
        if uses_nnunet_loss(self.settings, weights, self.dataset_json):
            return super()._build_loss()
        loss = build_supervised_loss(
            self.settings, weights, self.label_manager, self.configuration_manager.batch_dice
        )
        return wrap_deep_supervision(loss.to(self.device), self._get_deep_supervision_scales())

    def _set_batch_size_and_oversample(self) -> None:
        equal_shards = self.configuration_manager.batch_dice
        self.ranks.require_divisible(self.settings.labelled_batch_size, equal_shards)
        super()._set_batch_size_and_oversample()

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self) -> Any:
        rotation, flat, first_patch_size, mirror_axes = (
            super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        )
        if not self.settings.mirror:
            mirror_axes = self.inference_allowed_mirroring_axes = None
        limit, patch = self.settings.max_rotation_degrees, self.configuration_manager.patch_size
        if limited := limit_rotation(rotation, limit, patch, in_plane_only=flat):
            rotation, first_patch_size = limited
        return rotation, flat, first_patch_size, mirror_axes

    def set_deep_supervision_enabled(self, enabled: bool) -> None:
        for switch in find_deep_supervision_modules(unwrap_compiled(self.network)):
            switch.deep_supervision = enabled

    @property
    def bare_network(self) -> nn.Module:
        """The student without the wrapper of torch.compile."""
        return unwrap_compiled(self.network)

    # ---------------------------------------------------------------- data

    def labelled_identifiers(self) -> list[str]:
        """Return all preprocessed labelled cases.

        Raises:
            UserError: the configuration is not preprocessed.
        """
        self.commands.require_preprocessed(self.preprocessed_dataset_folder)
        if self.dataset_class is None:
            self.dataset_class = infer_dataset_class(self.preprocessed_dataset_folder)
        return sorted(self.dataset_class.get_identifiers(self.preprocessed_dataset_folder))

    def do_split(self) -> tuple[list[str], list[str]]:
        """Return nnU-Net's split, checked for whole patients."""
        cases, base = self.labelled_identifiers(), Path(self.preprocessed_dataset_folder_base)
        if self.fold != "all":
            require_fold(base, self.fold, cases, self.patient_of)
        with self._muted(self._has_split):  # nnU-Net would print the same lines each time
            split: tuple[list[str], list[str]] = super().do_split()
        self._has_split = True
        require_usable_split(base, self.fold, split, cases, self.patient_of)
        return split

    @contextmanager
    def _muted(self, mutes: bool) -> Iterator[None]:
        """Print nothing into the log inside the block, if ``mutes``."""
        printed = self.print_to_log_file
        if mutes:
            self.print_to_log_file = lambda *words, **options: None
        try:
            yield
        finally:
            self.print_to_log_file = printed

    def print_plans(self) -> None:
        cases = {kind: len(names) for kind, names in self.current_cases().items() if names}
        module = sys.modules.get(type(self).__module__)  # nnU-Net does not add a user's file
        method = type(self).__doc__ or (module and module.__doc__) or ""
        if self.ranks.rank == 0:
            self.run_log.introduce(
                Path(self.output_folder),
                type(self).__name__,
                method.strip().partition("\n")[0],
                {**cases, "for validation": len(self.do_split()[1])},
                self.batch_sizes(),
                self.configuration_manager.patch_size,
            )
        super().print_plans()

    def get_dataloaders(self) -> tuple[StepLoader, StepLoader]:
        training_cases, validation_cases = self.do_split()
        base = Path(self.preprocessed_dataset_folder_base)
        if self.fold != "all" and (warning := describe_left_out(base, self.labelled_identifiers())):
            self.say(warning)
        self.commands.require_complete(
            self.preprocessed_dataset_folder, [*training_cases, *validation_cases]
        )
        require_predictions(
            self.folder_with_segs_from_previous_stage,
            [*training_cases, *validation_cases],
            self.preprocessed_dataset_folder,
            self.commands.train_previous_stage,
        )
        with variable("nnUNet_n_proc_DA", "0"):  # nnU-Net starts no processes; ours start later
            training, validation = (loader.data_loader for loader in super().get_dataloaders())
        make_repeatable(training, validation, self.preprocessed_dataset_folder_base, self.settings)
        return build_step_loaders(
            self.streams(training), validation, self.settings, self.ranks, self.device, self.step
        )

    def streams(self, labelled: Any) -> dict[str, Any]:
        """Return name -> nnU-Net loader of each stream of a batch; ``labelled`` is nnU-Net's."""
        return {"labelled": labelled}

    def batch_sizes(self) -> dict[str, int]:
        """Return the number of patches of each kind in a batch, on all GPUs together."""
        return {"labelled": self.settings.labelled_batch_size}

    def current_cases(self) -> dict[str, list[str]]:
        """Return the cases of this training by kind."""
        return {"labelled": [str(case) for case in self.do_split()[0]]}

    def case_folders(self) -> dict[str, str]:
        """Return the preprocessed folder of each kind of cases."""
        return dict.fromkeys(("labelled", "validation"), str(self.preprocessed_dataset_folder))

    def current_sources(self, cases: Mapping[str, Sequence[str]]) -> dict[str, dict[str, str]]:
        """Return the sources of the cases of each kind, and of the validation cases."""
        folders, cases = self.case_folders(), {**cases, "validation": self.do_split()[1]}
        return {kind: read_sources(folders[kind], names) for kind, names in cases.items()}

    # ---------------------------------------------------------------- training

    def run_training(self) -> None:
        with self.preemption.watch(), self.checkpoint_writer.running(self.say):
            try:
                super().run_training()
            except EarlyStop as reason:
                self.print_to_log_file(str(reason))
                self._stopped_early = True
                self.on_train_end()
            except ValueError as error:
                raise_if_batch_too_small(error)
                raise
            except (RuntimeError, OSError) as error:
                raise_if_machine_fault(error, self.output_folder, self.dataloader_train)
                raise
        self.resuming = False  # nnU-Net's --val_best now loads a file by its name

    def on_train_start(self) -> None:
        self.ranks.run_on_rank_zero(lambda: lock_fold(self.output_folder))
        self.ranks.run_on_rank_zero(self._require_current_preprocessing)
        super().on_train_start()
        if self.fold != "all" and self.initial_weights.learned_from:
            base = Path(self.preprocessed_dataset_folder_base)
            group_of = join_known_twins(self.patient_of, base)
            self.initial_weights.require_unseen(self.do_split(), self.fold, group_of)
        self._cases = self.current_cases()
        self._sources = self.current_sources(self._cases)
        self.ranks.require_equal({"the checkpoint": self.step, "the cases": self._cases})
        if self.ranks.rank == 0:
            self.run_log.write_settings(
                Path(self.output_folder),
                type(self).__name__,
                self._cases,
                self._sources,
                self.initial_weights.record,
            )
            if warning := describe_slow_dtype(self.settings.mixed_precision, self.device):
                self.say(warning)
            for problem in (*self._find_idle_inputs(), *self._find_unfollowed_edits()):
                self.say(problem.as_warning())
        forget_lists()

    def _find_idle_inputs(self) -> list[Problem]:
        """Return what takes part in this training without being able to teach anything."""
        folder, plans = Path(self.preprocessed_dataset_folder_base), self.plans_manager.plans
        settings = {type(self).__name__: self.settings} if self._cases.get("unlabelled") else {}
        return collect_idle_inputs(folder, plans, self.configuration_name, settings, str(self.fold))

    def _find_unfollowed_edits(self) -> Iterator[Problem]:
        """Yield planned settings that do not follow an edit of the plans by hand."""
        for name, reason in self.resolved.reasons.items():
            if reason.startswith(NOT_FOLLOWED):
                value = getattr(self.settings, name)
                yield Problem(f"{name} {value}", f"was {reason}", self.commands.plan)

    def _require_current_preprocessing(self) -> None:
        """Raise if plans, labels or images have changed since preprocessing."""
        # nnU-Net decodes names by the locale, preprocessing as UTF-8
        description = read_json(Path(self.preprocessed_dataset_folder_base) / DATASET_JSON)
        plans = self.plans_manager.plans
        spec = PreprocessingSpec(plans, self.configuration_name, description)
        folder, command = Path(self.preprocessed_dataset_folder), self.commands.preprocess
        problems = [*find_outdated_problems(spec, folder, command)]
        problems += find_stale_cases(folder, command)
        raise_if_any("The training cannot start:", problems)

    def on_train_end(self) -> None:
        super().on_train_end()
        self._close_loaders()
        self.run_log.close()

    def _close_loaders(self) -> None:
        self.dataloader_train.close()
        self.dataloader_val.close()

    def restart_loaders(self) -> None:
        """Restart the loaders from the current step, because the cases have changed."""
        self._close_loaders()
        self.dataloader_train, self.dataloader_val = self.get_dataloaders()
        self._cases = self.current_cases()
        self._sources = self.current_sources(self._cases)

    @property
    def step(self) -> int:
        """Number of the current or next optimizer step, from 0."""
        return self.current_epoch * self.settings.steps_per_epoch + self.step_in_epoch

    def on_epoch_start(self) -> None:
        super().on_epoch_start()
        self.run_log.begin_epoch()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self.num_iterations_per_epoch = self.settings.steps_per_epoch - self.step_in_epoch

    def on_train_epoch_end(self, train_outputs: list[dict[str, Any]]) -> None:
        self.non_finite.check(now=True)
        means = self.ranks.mean(self.records.means())
        rate = self.optimizer.param_groups[0]["lr"]
        self.run_log.epoch_values = {"learning_rate": rate, **means}
        update_schedule(self.lr_scheduler, total := total_loss(means))
        self.logger.log("train_losses", total, self.current_epoch)

    def on_epoch_end(self) -> None:
        epoch, folder = self.current_epoch, Path(self.output_folder)
        self.run_log.end_epoch(epoch, self.num_epochs, self.logger.loggers)
        if self.ranks.rank == 0:
            self.run_log.write_history(folder)
        dice = self.logger.get_value("ema_fg_dice", step=-1)
        if self._best_ema is None or math.isnan(dice) or dice > self._best_ema:
            self._best_epoch = epoch
        with self.checkpoint_writer.in_background():
            super().on_epoch_end()  # saves checkpoint_best and counts the epoch
            next_epoch, self.step_in_epoch = epoch + 1, 0
            is_due = next_epoch % self.settings.save_every_epochs == 0
            if is_due and next_epoch < self.num_epochs:
                self.save_checkpoint(str(folder / checkpoints.LATEST), next_epoch)
        stop_early(epoch, self._best_epoch, self._best_ema, self.settings)

    # ---------------------------------------------------------------- checkpoints

    def save_checkpoint(
        self, filename: str, next_epoch: int | None = None, **progress: Any
    ) -> None:
        """Write a checkpoint atomically, at the end of an epoch in a thread.

        Args:
            next_epoch: epoch to continue with; None for the one after the current.
            progress: state within that epoch, stored under "semi".
        """
        if self.ranks.rank == 0 and not self.disable_checkpointing:
            content = self.checkpoint_content(
                self.current_epoch + 1 if next_epoch is None else next_epoch
            )
            content["semi"] |= progress
            self.checkpoint_writer.save(content, filename)

    def checkpoint_content(self, next_epoch: int) -> dict[str, Any]:
        """Return nnU-Net's keys, and under "semi" the rest of what resuming needs."""
        scaler = self.grad_scaler
        return {
            "network_weights": self.bare_network.state_dict(),
            "optimizer_state": self.optimizer.state_dict(),
            "grad_scaler_state": scaler and scaler.state_dict(),
            "logging": self.logger.get_checkpoint(),
            "_best_ema": self._best_ema,
            "current_epoch": next_epoch,
            "init_args": self.my_init_kwargs,
            "trainer_name": type(self).__name__,
            "inference_allowed_mirroring_axes": self.inference_allowed_mirroring_axes,
            "semi": {
                "version": semi_nnunet.__version__,
                "identity": self.identity,
                "settings": self.resolved.as_dict(),
                "student": self.bare_network.state_dict(),
                "schedule": get_schedule_state(self.lr_scheduler),
                **self.run_log.state(),
                "best_epoch": self._best_epoch,
                "stopped_early": self._stopped_early,
                "cases": self._cases,
                "sources": self._sources,
                "processes": self.ranks.world_size,
                "initial_weights": self.initial_weights.record,
                LEARNED_BEFORE: sorted(self.initial_weights.learned_from),
            },
        }

    def load_checkpoint(
        self,
        filename_or_checkpoint: dict[str, Any] | str | None = None,
        checkpoint: dict[str, Any] | str | None = None,
    ) -> None:
        """Continue from the content of a checkpoint, a file, or the newest file of its folder.

        Args:
            filename_or_checkpoint: content or file.
            checkpoint: its name after nnU-Net 2.8.1; one of the two is given.
        """
        given = checkpoint if filename_or_checkpoint is None else filename_or_checkpoint
        if given is None:
            raise TypeError("load_checkpoint() needs a checkpoint")
        self.is_restoring = True
        if isinstance(given, dict):
            content, source = given, "the given checkpoint"
        else:
            read = checkpoints.read_newest_valid if self.resuming else checkpoints.read_single
            loaded = read(given, self.device)
            content, source = checkpoints.log_loaded_checkpoint(loaded, self.say)
        self._keep_settings(content.get("semi", {}).get("settings", {}))
        if not self.was_initialized:
            self.initialize()
        checkpoints.require_compatible(content, source, self.identity)
        self.restore(content)

    def _keep_settings(self, stored: Mapping[str, Any]) -> None:
        """Use the settings with which an earlier version began, before parts are made of them."""
        self.resolved = keep_earlier_behaviour(self.resolved, stored)
        self.settings, self.run_log.resolved = self.resolved.settings, self.resolved
        self._apply_settings()
        if self.was_initialized:
            self._set_batch_size_and_oversample()

    def restore(self, checkpoint: dict[str, Any]) -> None:
        """Restore the content of a checkpoint."""
        semi = checkpoint["semi"]
        if self.fold != "all":
            require_unseen_patients(
                list_learned_cases(checkpoint),
                self.do_split(),
                self.fold,
                self.patient_of,
                f"the training in {self.output_folder}",
                f"move the folder away to train from the start, or restore {SPLITS_FILE}",
            )
        if self.resuming and (earlier := semi.get("sources")):
            checkpoints.require_unchanged_cases(
                earlier, self.current_sources(earlier), self.output_folder
            )
        self.bare_network.load_state_dict(semi["student"])
        self.optimizer.load_state_dict(checkpoint["optimizer_state"])
        if self.grad_scaler is not None and checkpoint["grad_scaler_state"] is not None:
            self.grad_scaler.load_state_dict(checkpoint["grad_scaler_state"])
        restore_schedule(self.lr_scheduler, semi["schedule"])
        self.logger.load_checkpoint(checkpoint["logging"])
        self.current_epoch, self._best_ema = checkpoint["current_epoch"], checkpoint["_best_ema"]
        self.inference_allowed_mirroring_axes = checkpoint["inference_allowed_mirroring_axes"]
        self.run_log.restore(semi)
        self.initial_weights.record = semi.get("initial_weights", {})
        self.initial_weights.learned_from.update(semi.get(LEARNED_BEFORE, ()))
        self._best_epoch = semi["best_epoch"]
        # the patience may be longer now
        is_over = is_patience_over(self.current_epoch - 1, self._best_epoch, self.settings)
        self._stopped_early = semi["stopped_early"] and is_over
        self.step_in_epoch = self.epoch_progress.restore(semi)
        if self._stopped_early:
            self.num_epochs = self.current_epoch  # nnU-Net continues with the validation
        self.ranks.log_change(semi.get("processes"), self.say)
        checkpoints.log_changes(semi, self.resolved.as_dict(), self.current_cases(), self.say)


class EarlyStop(Exception):
    """Raised if the validation Dice has not risen for the patience of the settings."""


def stop_early(epoch: int, best_epoch: int, best_dice: float, settings: SemiSettings) -> None:
    """End the training if the validation Dice does not rise any more.

    Args:
        epoch: epoch that has ended.
        best_epoch: epoch of the highest moving-average Dice.
        best_dice: that Dice.
        settings: ``early_stopping_patience_epochs``; 0 to never end early.

    Raises:
        EarlyStop: the Dice has not risen for that many epochs.
    """
    if is_patience_over(epoch, best_epoch, settings):
        raise EarlyStop(
            f"Early stop: the moving-average Dice has not risen above {best_dice:.4f} "
            f"(epoch {best_epoch}) for {settings.early_stopping_patience_epochs} epochs"
        )


def is_patience_over(epoch: int, best_epoch: int, settings: SemiSettings) -> bool:
    """Return whether a training ends early after ``epoch``: see :func:`stop_early`."""
    return 0 < settings.early_stopping_patience_epochs <= epoch - best_epoch


@dataclass(frozen=True)
class SuggestedCommands:
    """Commands that the messages of a training suggest.

    >>> commands = SuggestedCommands("Dataset042_Pancreas", "nnUNetPlans", "2d", "SemiCPSTrainer")
    >>> commands.preprocess
    'semi_nnunet preprocess -d Dataset042_Pancreas -c 2d -p nnUNetPlans'

    Args:
        previous_stage: configuration of a cascade's previous stage, or None.
    """

    dataset: str
    plans: str
    configuration: str
    trainer: str
    previous_stage: str | None = None

    @property
    def status(self) -> str:
        """Command that shows what is trained and suggests the next one."""
        return suggest_command("status", dataset=self.dataset, plans=self.plans)

    @property
    def preprocess(self) -> str:
        """Command that preprocesses the cases."""
        return suggest_command(
            "preprocess",
            dataset=self.dataset,
            configurations=[self.configuration],
            plans=self.plans,
        )

    @property
    def plan(self) -> str:
        """Command that plans the settings again."""
        return suggest_command("plan", dataset=self.dataset, plans=self.plans)

    @property
    def train_previous_stage(self) -> str:
        """Command that makes the predictions of a cascade's previous stage."""
        options = f"{self.dataset} {self.previous_stage} FOLD -tr {self.trainer} -p {self.plans}"
        return f"train every fold of it: nnUNetv2_train {options}"

    @property
    def pretrain(self) -> str:
        """Command that trains the weights of ``pretrained=pool``."""
        options = f"{self.dataset} {self.configuration} all -tr SemiPretrainTrainer"
        return f"nnUNetv2_train {options} -p {self.plans}"

    def require_preprocessed(self, folder: str | Path) -> None:
        """Raise if the folder of the preprocessed cases does not exist."""
        if not Path(folder).is_dir():
            raise UserError(
                f"{self.configuration} is not preprocessed, there is no {folder}",
                fix=self.preprocess,
            )

    def require_complete(self, folder: str | Path, cases: Iterable[str]) -> None:
        """Raise if files of preprocessed cases are missing or cut."""
        if damaged := Manifest(folder).list_damaged(cases):
            raise UserError(
                f"preprocessed files of {format_count(damaged, 'case')} in {folder} are missing or "
                f"cut: {list_first(damaged)}",
                fix=self.preprocess,
            )
