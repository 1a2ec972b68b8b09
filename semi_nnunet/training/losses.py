"""nnU-Net's loss with what the settings change of it: focal loss, weights of classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from semi_nnunet.core.losses import DiceAndVoxelLoss
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.util.errors import UserError

ClassWeights = Sequence[float] | Callable[[], torch.Tensor] | None


def is_stock(settings: SemiSettings, class_weights: ClassWeights) -> bool:
    """Whether the supervised loss is nnU-Net's own."""
    return settings.supervised_loss == "dice_ce" and class_weights is None


def supervised_loss(
    settings: SemiSettings,
    class_weights: ClassWeights,
    label_manager: Any,
    batch_dice: bool,
    sum_over_ranks: Callable[[torch.Tensor], torch.Tensor] | None,
) -> nn.Module:
    """Dice + cross-entropy or focal loss, each class weighed, on the annotated voxels.

    Args:
        settings: ``supervised_loss``, ``focal_gamma``.
        class_weights: one for each class or region, or what returns them.
        label_manager: nnU-Net's.
        batch_dice: whether the Dice is that of the whole batch.
        sum_over_ranks: adds up the batch's Dice over processes; None: there is one.
    """
    return DiceAndVoxelLoss(
        regions=label_manager.has_regions,
        ignore_label=label_manager.ignore_label,
        batch_dice=batch_dice,
        focal_gamma=settings.focal_gamma if "focal" in settings.supervised_loss else 0.0,
        class_weights=class_weights,
        sum_over_ranks=sum_over_ranks,
    )


def given_class_weights(settings: SemiSettings, classes: int) -> tuple[float, ...] | None:
    """The setting ``class_weights``.

    Raises:
        UserError: there is not one number for each class or region.
    """
    weights = settings.class_weights
    if weights is not None and len(weights) != classes:
        raise UserError(
            f"class_weights must be one number for each of the {classes} classes (background "
            f"included) or regions, got {len(weights)}: {weights}. Fix: correct plans['semi']"
        )
    return weights
