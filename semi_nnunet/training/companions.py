"""A trainer with networks beside the student: moved, trained, validated, saved and deployed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import nn

from semi_nnunet.core.counts import count_classes
from semi_nnunet.core.losses import annotated_voxels, onehot_and_mask
from semi_nnunet.core.pseudo_labels import to_probs
from semi_nnunet.core.stochastic import statistics_kept
from semi_nnunet.data.annotated_classes import KEY as ANNOTATED
from semi_nnunet.data.annotated_classes import AnnotatedClasses
from semi_nnunet.networks.average import NetworkAverage
from semi_nnunet.training.batches import Batches
from semi_nnunet.training.compiling import CompiledNetworks
from semi_nnunet.training.losses import loss_of_outputs
from semi_nnunet.training.optimisation import Schedule
from semi_nnunet.training.reliability import COUNTS, mean_dice
from semi_nnunet.training.reproducible import ReproducibleTrainer
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.seeds import derived_seed

NAMED = 5  # cases in a warning


class CompanionTrainer(ReproducibleTrainer, is_method=False):
    """A repeatable trainer of several networks of one plan.

    A subclass names them (:meth:`companions`) and says which is deployed
    (:meth:`prediction_network`). The student is ``self.network``.
    """

    # ---------------------------------------------------------------- what a method says

    def companions(self) -> dict[str, nn.Module]:
        """Networks beside the student, by name; they are moved, saved and restored."""
        return {}

    def prediction_network(self) -> nn.Module:
        """The network to validate, save and deploy, or a :class:`NetworkAverage` of several.

        nnU-Net predicts from one network for each fold: the first of an average. ``semi_nnunet
        export`` makes folds of all of them, which nnU-Net averages.
        """
        return self.bare_network

    def validated_networks(self) -> dict[str, nn.Module]:
        """Networks whose validation Dice is logged beside that of the deployed one, by name."""
        return {} if self.deploys_student else {"student": self.bare_network}

    def copy_student(self) -> None:
        """Called before the first step: the student may have begun with ``-pretrained_weights``."""

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
        if not self.is_restoring:
            self.initial_weights.give(network)
        return network

    def outputs(self, x: torch.Tensor, network: nn.Module | None = None) -> Any:
        """All that the student, or another network, says of ``x``, in float32: logits, or a list of
        them, full resolution first, with deep supervision.
        """
        runs = self.network if network is None else self.compiled(network)
        output = runs(x)
        return output.float() if isinstance(output, torch.Tensor) else [o.float() for o in output]

    def predict(self, x: torch.Tensor, network: nn.Module | None = None) -> torch.Tensor:
        """Full-resolution logits (B, classes or regions, *spatial) of the student or another."""
        return full_resolution(self.outputs(x, network))

    def predict_with(self, network: nn.Module, x: torch.Tensor) -> torch.Tensor:
        """Full-resolution logits of another network, without gradient or trace."""
        with torch.no_grad(), statistics_kept(network):
            return self.predict(x, network)

    def probs(self, logits: torch.Tensor) -> torch.Tensor:
        """Probabilities in float32: softmax over classes, or a sigmoid for each region."""
        return to_probs(logits, self.exclusive)

    @property
    def exclusive(self) -> bool:
        """Whether the classes exclude each other (softmax), or are regions (sigmoid)."""
        return not self.label_manager.has_regions

    def annotation(self, target: Any) -> tuple[torch.Tensor, torch.Tensor]:
        """The labels at full resolution: one-hot or regions, and a mask of what is annotated."""
        manager = self.label_manager
        heads, regions = manager.num_segmentation_heads, manager.has_regions
        return onehot_and_mask(full_resolution(target), heads, regions, manager.ignore_label)

    @cached_property
    def annotated_classes(self) -> AnnotatedClasses | None:
        """Which classes each case annotates; None: every case annotates all."""
        return AnnotatedClasses.of(self.dataset_json)

    # ---------------------------------------------------------------- set-up

    def every_companion(self) -> dict[str, nn.Module]:
        """The method's :meth:`companions` and those that a base class adds."""
        return self.companions()

    def configure_optimizers(self) -> tuple[torch.optim.Optimizer, Schedule]:
        """Make the companions, and the optimizer of all networks that take a gradient."""
        torch.manual_seed(derived_seed(self.settings.seed, "companions"))
        self._companions = nn.ModuleDict(self.every_companion()).to(self.device)
        self.compiled = CompiledNetworks(self.network)
        return super().configure_optimizers()

    def trained_networks(self) -> list[nn.Module]:
        companions = self._companions.values()
        taking_gradients = [
            module for module in companions if any(p.requires_grad for p in module.parameters())
        ]
        return [self.network, *taking_gradients]

    def on_train_start(self) -> None:
        if not self.was_initialized:
            self.initialize()
        if self.step == 0:
            self.copy_student()
        self.ranks.take_weights_of_first([self.bare_network, self._companions])
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
        """Whether the student itself is the network that is deployed."""
        return self.prediction_network() is self.bare_network

    def deployed_networks(self) -> list[nn.Module]:
        """The :meth:`prediction_network`, or those it averages."""
        network = self.prediction_network()
        return list(network.members) if isinstance(network, NetworkAverage) else [network]

    @contextmanager
    def as_network(self, network: nn.Module) -> Iterator[None]:
        """Inside the block, ``self.network`` is the given one, so that nnU-Net validates it."""
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
            target = raw["target"]  # a copy of it: nnU-Net overwrites the ignore label
            copied = [t.clone() for t in target] if isinstance(target, list) else target.clone()
            output = self._validated({**raw, "target": copied}, network)
            outputs |= {f"{name}_{key}": output[f"{key}_hard"] for key in COUNTS}
        return {**self._validated(raw, self.prediction_network()), **outputs}

    def _validated(self, raw: dict[str, Any], network: nn.Module) -> dict[str, Any]:
        """nnU-Net's validation of a network on a batch, and how many voxels it has looked at.

        With partial labels, a case counts for the classes that it annotates alone.
        """
        manager, target = self.label_manager, raw["target"]
        with self.as_network(self.compiled(network)):
            if self.annotated_classes is None:
                looked_at = annotated_voxels(
                    full_resolution(target), manager.has_regions, manager.ignore_label
                )
                return {"voxels": int(looked_at.sum()), **super().validation_step(raw)}
            annotated = self.annotated_classes.rows(raw["keys"], self.device)
            levels = [t.to(self.device) for t in target] if isinstance(target, list) else target
            levels = levels if isinstance(levels, list) else levels.to(self.device)
            on_gpu = self.device.type == "cuda"
            with torch.autocast("cuda") if on_gpu else nullcontext():  # as nnU-Net
                outputs = self.network(raw["data"].to(self.device))
                loss = loss_of_outputs(self.loss, outputs, levels, annotated)
        logits, target = full_resolution(outputs), full_resolution(levels)
        counts = count_classes(logits, target, self.exclusive, manager.ignore_label, annotated)
        *hard, voxels = counts.cpu().numpy()
        found = {f"{key}_hard": count for key, count in zip(COUNTS, hard, strict=True)}
        return {"loss": loss.detach().cpu().numpy(), "voxels": voxels, **found}

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
        deployed, *others = (network.state_dict() for network in self.deployed_networks())
        content["network_weights"] = deployed
        content["semi"]["companions"] = self._companions.state_dict()
        content["semi"]["averaged_with"] = others
        content["semi"][ANNOTATED] = self.dataset_json.get(ANNOTATED)
        return content

    def restore(self, checkpoint: dict[str, Any]) -> None:
        companions = checkpoint["semi"]["companions"]
        require_same_weights(self._companions, companions)
        super().restore(checkpoint)
        self._companions.load_state_dict(companions)
        tell_change_of_annotation(checkpoint["semi"], self.dataset_json, self.say)


def full_resolution(levels: Any) -> torch.Tensor:
    """What is at full resolution of one tensor, or of a list for deep supervision."""
    first: torch.Tensor = levels[0] if isinstance(levels, list) else levels
    return first


def tell_change_of_annotation(
    semi: Mapping[str, Any], dataset_json: Mapping[str, Any], say: Callable[[str], None]
) -> None:
    """Say that cases no longer annotate the classes that they did when a checkpoint was written.

    Args:
        semi: what the checkpoint has under "semi"; one of an earlier version tells nothing.
        dataset_json: of now.
        say: prints a line into the training's log.
    """
    now = dataset_json.get(ANNOTATED) or {}
    then = semi.get(ANNOTATED, now) or {}
    if changed := [name for name in {**then, **now} if then.get(name) != now.get(name)]:
        say(
            f"WARNING: dataset.json tells something else of what is annotated than when the "
            f"checkpoint was written, of {', '.join(changed[:NAMED])}"
            f"{' and others' if len(changed) > NAMED else ''}"
        )


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
            f"{', '.join(sorted(different))}",
            fix="undo the change (semi_settings.json has the "
            "settings of then), or train from the start",
        )
