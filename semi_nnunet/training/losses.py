"""The supervised loss of the settings: its voxel loss, class weights and partial labels."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from semi_nnunet.core.losses import DiceAndVoxelLoss
from semi_nnunet.raw.classes import has_partial_labels
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.util.errors import UserError

ClassWeights = Sequence[float] | Callable[[], torch.Tensor] | None

# Value of supervised_loss -> builder of the loss, from the settings and the keyword arguments of
# DiceAndVoxelLoss. A new loss takes a line here and a choice of that setting.
SUPERVISED_LOSSES: dict[str, Callable[..., nn.Module]] = {
    "dice_ce": lambda settings, **options: DiceAndVoxelLoss(**options),
    "dice_focal": lambda settings, **options: DiceAndVoxelLoss(
        focal_gamma=settings.focal_gamma, **options
    ),
}


def uses_nnunet_loss(
    settings: SemiSettings, class_weights: ClassWeights, dataset_json: Mapping[str, Any]
) -> bool:
    """Return whether the supervised loss is nnU-Net's own, which cannot handle partial labels."""
    is_default = settings.supervised_loss == "dice_ce" and class_weights is None
    return is_default and not has_partial_labels(dataset_json)


def build_supervised_loss(
    settings: SemiSettings, class_weights: ClassWeights, label_manager: Any, batch_dice: bool
) -> nn.Module:
    """Build the loss of the setting ``supervised_loss`` on annotated voxels.

    Args:
        class_weights: one for each class or region, or a function that returns them.
        batch_dice: compute the Dice of the whole batch.
    """
    return SUPERVISED_LOSSES[settings.supervised_loss](
        settings,
        regions=label_manager.has_regions,
        ignore_label=label_manager.ignore_label,
        batch_dice=batch_dice,
        class_weights=class_weights,
    )


def compute_supervised_loss(
    loss: nn.Module, outputs: Any, target: Any, annotated: torch.Tensor | None
) -> torch.Tensor:
    """Compute the supervised loss of all outputs of a network.

    Args:
        loss: :func:`build_supervised_loss` or nnU-Net's, perhaps with deep supervision.
        outputs: logits, or a list of logits.
        target: target, or a list of as many.
        annotated: bool (B, classes or regions); None if every patch annotates all.
    """
    if annotated is None:
        value: torch.Tensor = loss(outputs, target)
    elif isinstance(outputs, torch.Tensor):
        value = loss(outputs, target, annotated)
    else:
        value = loss(outputs, target, [annotated] * len(outputs))
    return value


def read_class_weights(settings: SemiSettings, heads: int) -> tuple[float, ...] | None:
    """Return the setting ``class_weights``, checked against the number of classes or regions.

    Raises:
        UserError: the number of weights is wrong.
    """
    weights = settings.class_weights
    if weights is not None and len(weights) != heads:
        raise UserError(
            f"class_weights must be one number for each of the {heads} classes (background "
            f"included) or regions, got {len(weights)}: {weights}",
            fix="correct plans['semi']",
        )
    return weights
