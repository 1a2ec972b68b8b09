"""Masked reconstruction of all images, before any label is used (He et al. 2022; for 3-D U-Nets
Wald et al. 2024, arXiv:2410.23132).

Blocks of a patch are hidden, and the network restores them from the rest; labelled and unlabelled
images are treated alike. Other trainers start from its weights with ``pretrained=pool``.

The network is that of the plans, with one output for each channel of the image instead of each
class. A block has the size of a voxel at the lowest resolution; the loss is the squared difference
on hidden voxels. Differs from the paper: no sparse convolutions; hidden voxels are 0, the mean of a
normalised image. The second stage of a cascade, whose input contains predictions, is not
pre-trained.

It is meant for fold "all". It uses no labels and no test images, but images of validation cases.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import nn

from semi_nnunet.core.masking import sample_hidden_blocks, score_restoration
from semi_nnunet.loading.steps import LabelledBatch, UnlabelledBatch
from semi_nnunet.networks.pretrained import ADAPTATION_KEY, build_adaptation_plan
from semi_nnunet.settings.common import POOL
from semi_nnunet.settings.methods import PretrainSettings
from semi_nnunet.training.batches import Batches
from semi_nnunet.training.trainer import SemiTrainer, Term
from semi_nnunet.util.errors import UserError
from semi_nnunet.util.verb_commands import suggest_command


class SemiPretrainTrainer(SemiTrainer):
    """Restore hidden blocks of all images; other trainers start from the weights."""

    settings_class = PretrainSettings
    segments = False

    @staticmethod
    def build_network_architecture(
        plans_manager: Any,
        configuration_manager: Any,
        num_input_channels: int,
        num_output_channels: int,
        enable_deep_supervision: bool = True,
    ) -> nn.Module:
        """Build the network of the plans, with one output for each channel of an image."""
        return SemiTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_input_channels,
            enable_deep_supervision,
        )  # fmt: skip

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        # one term after the other: nnU-Net plans the memory for one batch
        everywhere = torch.ones_like(labelled.x[:, :1], dtype=torch.bool)
        patches = len(labelled.x) + len(unlabelled.x_weak)
        for image, inside in ((labelled.x, everywhere), (unlabelled.x_weak, unlabelled.mask)):
            error, restored = self.restore_hidden(image, inside)
            self.records.add("restored/training", restored)
            yield Term("restoration", error * (len(image) / patches), ramped=False)

    def restore_hidden(
        self, image: torch.Tensor, inside: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return error and explained variance of hidden voxels, see ``core.masking``.

        Args:
            image: (B, C, *spatial).
            inside: bool (B, 1, *spatial), False in the padding.
        """
        block = np.prod(self.configuration_manager.pool_op_kernel_sizes, axis=0)
        share = self.settings.hidden_share
        hidden = sample_hidden_blocks(image, [int(edge) for edge in block], share)
        visible = torch.where(hidden, 0.0, image)
        return score_restoration(self.predict(visible), image, hidden & inside)

    # ---------------------------------------------------------------- validation

    def validation_step(self, batch: Batches) -> dict[str, Any]:
        """Return loss and explained variance on labelled patches of the fold."""
        image = batch[0]["validation"]["data"].to(self.device)
        with torch.no_grad():
            values = self.restore_hidden(image, torch.ones_like(image[:, :1], dtype=torch.bool))
        error, restored = map(float, values)
        return {"loss": error, "restored": restored}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        keys = ("loss", "restored")
        means = {key: float(np.mean([output[key] for output in val_outputs])) for key in keys}
        means = self.ranks.mean(means)
        self.run_log.epoch_values["restored/validation"] = means["restored"]
        for key, value in (  # names of nnU-Net, whose checkpoint_best has the highest Dice
            ("mean_fg_dice", means["restored"]),
            ("dice_per_class_or_region", [means["restored"]]),
            ("val_losses", means["loss"]),
        ):
            self.logger.log(key, value, self.current_epoch)

    def on_train_start(self) -> None:
        if self.configuration_manager.previous_stage_name is not None:
            raise UserError(
                f"{self.configuration_name} is the second stage of a cascade, which cannot be "
                f"pre-trained, because its input contains predictions of the first stage",
                fix="pre-train and train another configuration, or train this one without "
                "pretrained",
            )
        super().on_train_start()
        self.say(
            "This training restores hidden blocks of images. The Pseudo dice of nnU-Net's messages "
            "is the restored share of their variance."
        )

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Print how to use the weights; nothing is segmented."""
        command = suggest_command(
            "plan", dataset=self.plans_manager.dataset_name, plans=self.plans_manager.plans_name,
            configurations=[self.configuration_name], settings=[f"pretrained={POOL}"],
        )  # fmt: skip
        self.say(f"Pre-training is done. To start trainings from its weights: {command}")

    def checkpoint_content(self, next_epoch: int) -> dict[str, Any]:
        """Add the description that nnU-Net's own fine-tuning needs."""
        content, plans = super().checkpoint_content(next_epoch), self.plans_manager.plans
        plan = build_adaptation_plan(
            self.bare_network, plans, self.configuration_manager.configuration,
            self.configuration_name, self.num_input_channels,
        )  # fmt: skip
        return content if plan is None else {**content, ADAPTATION_KEY: plan, "citations": []}
