"""Masked reconstruction of all images, before any label is looked at (He et al. 2022; of U-Nets in
3-D Wald et al. 2024, arXiv:2410.23132).

Blocks of a patch are hidden, and the network restores them from the rest; labelled and unlabelled
images are the same to it. Every other trainer begins with its weights by ``pretrained=pool``.

The network is that of the plans, with one output for each channel of the image instead of each
class; blocks have the size of a voxel of its lowest resolution; the loss is the squared difference
on hidden voxels. Differs from the paper: no sparse convolutions; hidden voxels are 0, the mean of a
normalised image. The second stage of a cascade, whose input has predictions, is not pre-trained.

Fold "all" is meant. It has seen the images, never the labels, of every labelled case: also of those
that a fold validates on. Test images are not seen.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from semi_nnunet.core.masking import sample_hidden_blocks, score_restoration
from semi_nnunet.data.loading import LabelledBatch, UnlabelledBatch
from semi_nnunet.networks.pretrained import ADAPTATION_KEY, build_adaptation_plan
from semi_nnunet.settings.common import LOSS, MATCHED, POOL, SemiSettings
from semi_nnunet.settings.schema import setting
from semi_nnunet.training.batches import Batches
from semi_nnunet.training.trainer import SemiTrainer, Term
from semi_nnunet.util.errors import UserError


@dataclass(frozen=True, kw_only=True)
class PretrainSettings(SemiSettings):
    hidden_share: float = setting(
        0.6, "of the blocks of a patch (Wald et al.: .6 to .75; He et al.: .75)", low=0, below=1
    )
    deep_supervision: bool = setting(
        False, "the image is restored at full resolution", topic=LOSS, scope=MATCHED
    )


class SemiPretrainTrainer(SemiTrainer):
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
        """The network of the plans, whose outputs are the channels of an image."""
        return SemiTrainer.build_network_architecture(
            plans_manager, configuration_manager, num_input_channels, num_input_channels,
            enable_deep_supervision,
        )  # fmt: skip

    def terms(self, labelled: LabelledBatch, unlabelled: UnlabelledBatch) -> Iterable[Term]:
        # one kind after the other: nnU-Net plans the memory for one batch
        everywhere = torch.ones_like(labelled.x[:, :1], dtype=torch.bool)
        patches = len(labelled.x) + len(unlabelled.x_weak)
        for image, inside in ((labelled.x, everywhere), (unlabelled.x_weak, unlabelled.mask)):
            error, restored = self.restore_hidden(image, inside)
            self.records.add("restored/training", restored)
            yield Term("restoration", error * (len(image) / patches), ramped=False)

    def restore_hidden(
        self, image: torch.Tensor, inside: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Error and restored share of hidden voxels (see ``core.masking.restoration``).

        Args:
            image: (B, C, *spatial).
            inside: bool (B, 1, *spatial), False in the padding.
        """
        block = np.prod(self.configuration_manager.pool_op_kernel_sizes, axis=0)
        hidden = sample_hidden_blocks(
            image, [int(edge) for edge in block], self.settings.hidden_share
        )
        seen = torch.where(hidden, 0.0, image)
        return score_restoration(self.predict(seen), image, hidden & inside)

    # ---------------------------------------------------------------- validation

    def validation_step(self, batch: Batches) -> dict[str, Any]:
        """The loss, and the share that is restored, of labelled patches of the fold."""
        image = batch[0]["validation"]["data"].to(self.device)
        with torch.no_grad():
            found = self.restore_hidden(image, torch.ones_like(image[:, :1], dtype=torch.bool))
        error, restored = (float(value) for value in found)
        return {"loss": error, "restored": restored}

    def on_validation_epoch_end(self, val_outputs: list[dict[str, Any]]) -> None:
        means = {
            key: float(np.mean([one[key] for one in val_outputs])) for key in ("loss", "restored")
        }
        means = self.ranks.mean(means)
        self.run_log.epoch_values["restored/validation"] = means["restored"]
        for key, value in (  # nnU-Net wants these names; its checkpoint_best is the highest
            ("mean_fg_dice", means["restored"]),
            ("dice_per_class_or_region", [means["restored"]]),
            ("val_losses", means["loss"]),
        ):
            self.logger.log(key, value, self.current_epoch)

    def on_train_start(self) -> None:
        if self.configuration_manager.previous_stage_name is not None:
            raise UserError(
                f"{self.configuration_name} is the second stage of a cascade, whose input has "
                f"predictions of the first; there is no pre-training of it",
                fix="pre-train and "
                "train another configuration, or train this one without pretrained",
            )
        super().on_train_start()
        self.say(
            "This training restores hidden blocks of images. What nnU-Net calls Pseudo dice below "
            "is the share of their variance that is restored."
        )

    def perform_actual_validation(self, save_probabilities: bool = False) -> None:
        """Nothing is segmented. Says how its weights are used."""
        name, configuration = self.plans_manager.dataset_name, self.configuration_name
        self.say(
            "Pre-training is done. To begin trainings with its weights: semi_nnunet plan "
            f"-d {name} -p {self.plans_manager.plans_name} -c {configuration} --set "
            f"pretrained={POOL}"
        )

    def checkpoint_content(self, next_epoch: int) -> dict[str, Any]:
        """With what nnU-Net's own fine-tuning needs to read it."""
        content = super().checkpoint_content(next_epoch)
        plan = build_adaptation_plan(
            self.bare_network,
            self.plans_manager.plans,
            self.configuration_manager.configuration,
            self.configuration_name,
            self.num_input_channels,
        )
        return content if plan is None else {**content, ADAPTATION_KEY: plan, "citations": []}
