"""A trainer with companions of the student: networks that are trained, validated and saved."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any, cast

import numpy as np
import torch
from torch import nn

from semi_nnunet.core.counts import count_classes
from semi_nnunet.core.losses import annotated_voxels, onehot_and_mask
from semi_nnunet.core.pseudo_labels import to_probs
from semi_nnunet.core.stochastic import freeze_batch_statistics
from semi_nnunet.networks.average import NetworkAverage
from semi_nnunet.networks.frozen import unwrap_compiled
from semi_nnunet.raw.classes import ANNOTATED_KEY as ANNOTATED
from semi_nnunet.raw.classes import AnnotatedClasses
from semi_nnunet.training.batches import Batches
from semi_nnunet.training.losses import compute_supervised_loss
from semi_nnunet.training.optimisation import Schedule
from semi_nnunet.training.reliability import COUNTS, mean_dice
from semi_nnunet.training.reproducible import ReproducibleTrainer
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.seeds import derived_seed

MOST_NAMED = 5  # cases in a warning


class CompiledNetworks:
    """The compiled versions of a training's networks, if nnU-Net compiles the student.

    Weights, and their names in checkpoints, stay those of the bare networks.

    >>> student = nn.Linear(1, 1)
    >>> CompiledNetworks(student)(student) is student  # nnU-Net does not compile it
    True

    Args:
        student: the student as nnU-Net built it, compiled or not.
    """

    def __init__(self, student: nn.Module):
        bare = unwrap_compiled(student)
        self.compiles = student is not bare
        self._compiled: dict[nn.Module, nn.Module] = {bare: student}
        self._functions: dict[Callable[..., Any], Callable[..., Any]] = {}

    def __call__(self, network: nn.Module) -> nn.Module:
        """Return the module that runs a network; it is compiled in its first pass."""
        bare = unwrap_compiled(network)
        if not self.compiles:
            return bare
        if isinstance(bare, NetworkAverage):
            return NetworkAverage([self(member) for member in bare.members])
        if bare not in self._compiled:
            self._compiled[bare] = cast("nn.Module", torch.compile(bare))
        return self._compiled[bare]

    def path(self, path: Callable[..., Any]) -> Callable[..., Any]:
        """Return the compiled version of a function that runs parts of networks."""
        if not self.compiles:
            return path
        if path not in self._functions:
            self._functions[path] = torch.compile(path)
        return self._functions[path]


class CompanionTrainer(ReproducibleTrainer, is_method=False):
    """A reproducible trainer of several networks of one plan.

    The student is ``self.network``. A subclass defines the other networks (:meth:`companions`) and
    which network is deployed (:meth:`prediction_network`).
    """

    # ---------------------------------------------------------------- defined by a method

    def companions(self) -> dict[str, nn.Module]:
        """Return the other networks by name; they are moved, saved and restored."""
        return {}

    def prediction_network(self) -> nn.Module:
        """Return the network to validate, save and deploy, or a :class:`NetworkAverage`.

        nnU-Net predicts with one network for each fold: the first of an average. ``semi_nnunet
        export`` makes folds of all members, which nnU-Net averages.
        """
        return self.bare_network

    def validated_networks(self) -> dict[str, nn.Module]:
        """Return the other networks whose validation Dice is logged, by name."""
        return {} if self.deploys_student else {"student": self.bare_network}

    def copy_student(self) -> None:
        """Copy the initial weights of the student, which may be those of ``-pretrained_weights``.

        Called before the first step.
        """

    # ---------------------------------------------------------------- used by a method

    def companion(self, name: str) -> Any:
        """Return one of the :meth:`companions`."""
        return self._companions[name]

    def another_network(self, name: str, input_channels: int | None = None) -> nn.Module:
        """Return a network of the student's plan with other initial weights.

        Args:
            name: determines the weights, together with the seed.
            input_channels: number of input channels; None for that of the student.
        """
        torch.manual_seed(derived_seed(self.settings.seed, "weights", name))
        network = self.build_network_architecture(
            self.plans_manager,
            self.configuration_manager,
            input_channels or self.num_input_channels,
            self.label_manager.num_segmentation_heads,
            self.enable_deep_supervision,
        )
        if not self.is_restoring:
            self.initial_weights.load_into(network)
        return network

    def outputs(self, x: torch.Tensor, network: nn.Module | None = None) -> Any:
        """Return all outputs for ``x`` in float32.

        Args:
            x: patches (B, C, *spatial).
            network: None for the student.

        Returns:
            Logits (B, classes or regions, *spatial); with deep supervision a list of logits, full
            resolution first.
        """
        output = (self.network if network is None else self.compiled(network))(x)
        return output.float() if isinstance(output, torch.Tensor) else [o.float() for o in output]

    def predict(self, x: torch.Tensor, network: nn.Module | None = None) -> torch.Tensor:
        """Return the full-resolution logits of the student, or of another network."""
        return select_full_resolution(self.outputs(x, network))

    def predict_with(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Return full-resolution logits without gradient and without updating batch statistics."""
        with torch.no_grad(), freeze_batch_statistics(network):
            return self.predict(x, network)

    def probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Return float32 probabilities: softmax over classes, or a sigmoid for each region."""
        return to_probs(logits, self.exclusive)

    @property
    def exclusive(self) -> bool:
        """Whether classes exclude each other (softmax); otherwise they are regions (sigmoid)."""
        return not self.label_manager.has_regions

    def annotation(self, target: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """Return full-resolution labels, one-hot or regions, and the mask of annotated voxels."""
        manager = self.label_manager
        heads, regions = manager.num_segmentation_heads, manager.has_regions
        return onehot_and_mask(select_full_resolution(target), heads, regions, manager.ignore_label)

    def annotated_mask(self, target: Any) -> torch.Tensor:
        """Return the mask of annotated voxels (B, 1, *spatial), in full resolution."""
        manager = self.label_manager
        full = select_full_resolution(target)
        return annotated_voxels(full, manager.has_regions, manager.ignore_label)

    @cached_property
    def annotated_classes(self) -> AnnotatedClasses | None:
        """Classes that each case annotates; None if every case annotates all."""
        return AnnotatedClasses.of(self.dataset_json)

    # ---------------------------------------------------------------- set-up

    def build_all_companions(self) -> dict[str, nn.Module]:
        """Return the method's :meth:`companions` and those that a base class adds."""
        return self.companions()

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Schedule]:
        """Build the companions, and the optimizer of all networks that take a gradient."""
        torch.manual_seed(derived_seed(self.settings.seed, "companions"))
        companions = nn.ModuleDict(self.build_all_companions()).to(self.device)
        if self.is_ddp:  # as nnU-Net does with the student
            companions = cast(nn.ModuleDict, nn.SyncBatchNorm.convert_sync_batchnorm(companions))
        self._companions = companions
        self.compiled = CompiledNetworks(self.network)
        return super().configure_optimizers()

    def trained_networks(self) -> list[nn.Module]:
        trained_companions = [
            module
            for module in self._companions.values()
            if any(p.requires_grad for p in module.parameters())
        ]
        return [self.network, *trained_companions]

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        if self.step == 0:
            self.copy_student()
            self.initial_weights.continue_companions(self._companions)
        self.ranks.broadcast_weights([self.bare_network, self._companions])
        super().on_train_start()

    def on_train_epoch_start(self) -> None:
        super().on_train_epoch_start()
        self._companions.train()  # a teacher stays in evaluation mode

    def on_validation_epoch_start(self) -> None:
        super().on_validation_epoch_start()
        self._companions.eval()

    # ---------------------------------------------------------------- the deployed network

    @property
    def deploys_student(self) -> bool:
        """Whether the student itself is deployed."""
        return self.prediction_network() is self.bare_network

    def deployed_networks(self) -> list[nn.Module]:
        """Return the :meth:`prediction_network`, or the networks that it averages."""
        network = self.prediction_network()
        return list(network.members) if isinstance(network, NetworkAverage) else [network]

    @contextmanager
    def as_network(self, network: nn.Module) -> Iterator[None]:
        """Set ``self.network`` inside the block, so that nnU-Net validates another network."""
        student = self.network
        self.network = student if network is self.bare_network else network
        try:
            yield
        finally:
            self.network = student

    def validation_step(self, batch: Batches) -> dict[str, Any]:
        raw = batch[0]["validation"]
        outputs: dict[str, Any] = {}
        for name, network in self.validated_networks().items():
            target = raw["target"]  # copied, because nnU-Net overwrites the ignore label
            copied = [t.clone() for t in target] if isinstance(target, list) else target.clone()
            output = self._validate_batch({**raw, "target": copied}, network)
            outputs |= {f"{name}_{key}": output[f"{key}_hard"] for key in COUNTS}
        return {**self._validate_batch(raw, self.prediction_network()), **outputs}

    def _validate_batch(self, raw: dict[str, Any], network: nn.Module) -> dict[str, Any]:
        """Return nnU-Net's validation outputs of a batch, and the number of evaluated voxels.

        With partial labels, a case counts only for the classes that it annotates.
        """
        manager, target = self.label_manager, raw["target"]
        with self.as_network(self.compiled(network)):
            if self.annotated_classes is None:
                voxels = int(self.annotated_mask(target).sum())
                return {"voxels": voxels, **super().validation_step(raw)}
            annotated = self.annotated_classes.rows(raw["keys"], self.device)
            is_list, device = isinstance(target, list), self.device
            levels = [t.to(device) for t in target] if is_list else target.to(device)
            on_gpu = self.device.type == "cuda"
            with torch.autocast("cuda") if on_gpu else nullcontext():  # as nnU-Net
                outputs = self.network(raw["data"].to(self.device))
                loss = compute_supervised_loss(self.loss, outputs, levels, annotated)
        logits, target = select_full_resolution(outputs), select_full_resolution(levels)
        counts = count_classes(logits, target, self.exclusive, manager.ignore_label, annotated)
        *class_counts, voxels = counts.cpu().numpy()
        named = {f"{key}_hard": count for key, count in zip(COUNTS, class_counts, strict=True)}
        return {"loss": loss.detach().cpu().numpy(), "voxels": voxels, **named}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        with np.errstate(invalid="ignore"):  # a class may be absent from all patches
            super().on_validation_epoch_end(val_outputs)
            dice = {
                f"dice/{name}": mean_dice(val_outputs, f"{name}_{{}}", self.ranks)
                for name in self.validated_networks()
            }
        dice["dice/deployed"] = float(self.logger.get_value("mean_fg_dice", step=-1))
        self.run_log.epoch_values.update(dice)

    # ---------------------------------------------------------------- checkpoints

    def checkpoint_content(self, next_epoch: int) -> dict[str, Any]:
        content = super().checkpoint_content(next_epoch)
        deployed, *averaged = (network.state_dict() for network in self.deployed_networks())
        content["network_weights"] = deployed
        content["semi"]["companions"] = self._companions.state_dict()
        content["semi"]["averaged_with"] = averaged
        content["semi"][ANNOTATED] = self.dataset_json.get(ANNOTATED)
        return content

    def restore(self, checkpoint: dict[str, Any]) -> None:
        companions = checkpoint["semi"]["companions"]
        require_companion_weights(self._companions, companions)
        super().restore(checkpoint)
        self._companions.load_state_dict(companions)
        log_changed_annotation(checkpoint["semi"], self.dataset_json, self.say)


def select_full_resolution(levels: Any) -> torch.Tensor:
    """Return the first tensor of a list for deep supervision, or the only tensor."""
    first: torch.Tensor = levels[0] if isinstance(levels, list) else levels
    return first


def log_changed_annotation(
    semi: Mapping[str, Any], dataset_json: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """Warn if cases annotate other classes than when a checkpoint was written.

    Args:
        semi: content of the checkpoint's key "semi"; earlier versions did not store annotations.
        dataset_json: current content of dataset.json.
    """
    current = dataset_json.get(ANNOTATED) or {}
    stored = semi.get(ANNOTATED, current) or {}
    changed = [name for name in {**stored, **current} if stored.get(name) != current.get(name)]
    if changed:
        say(
            f"WARNING: the annotated classes in dataset.json have changed since the checkpoint "
            f"was written, for {', '.join(changed[:MOST_NAMED])}"
            f"{' and others' if len(changed) > MOST_NAMED else ''}"
        )


def require_companion_weights(companions: nn.Module, stored: Mapping[str, torch.Tensor]) -> None:
    """Raise if a checkpoint lacks or adds weights of companions."""
    different = {name.split(".")[0] for name in companions.state_dict().keys() ^ stored.keys()}
    if different:
        raise UserError(
            f"the checkpoint was written with other settings: it and plans['semi'] differ in "
            f"{', '.join(sorted(different))}",
            fix="undo the change (semi_settings.json has the earlier settings), or train from the "
            "start",
        )
