"""nnU-Net's loss with what the settings change of it: focal loss, weights of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from semi_nnunet.core.losses import DiceAndVoxelLoss
from semi_nnunet.data.annotated_classes import is_partial
from semi_nnunet.settings.common import SemiSettings
from semi_nnunet.util.errors import UserError

ClassWeights = Sequence[float] | Callable[[], torch.Tensor] | None


def is_stock(
    settings: SemiSettings, class_weights: ClassWeights, dataset_json: Mapping[str, Any]
) -> bool:
    """Whether the supervised loss is nnU-Net's own, which takes what is unknown for background."""
    asks_for_it = settings.supervised_loss == "dice_ce" and class_weights is None
    return asks_for_it and not is_partial(dataset_json)


def loss_of_outputs(
    loss: nn.Module, outputs: Any, target: Any, annotated: torch.Tensor | None
) -> torch.Tensor:
    """The supervised loss of all outputs of a network.

    Args:
        loss: of :func:`supervised_loss`, or nnU-Net's, perhaps with deep supervision.
        outputs: logits, or a list of them.
        target: as many.
        annotated: bool (B, classes or regions); None: every patch annotates all.
    """
    if annotated is None:
        value: torch.Tensor = loss(outputs, target)
    elif isinstance(outputs, torch.Tensor):
        value = loss(outputs, target, annotated)
    else:
        value = loss(outputs, target, [annotated] * len(outputs))
    return value


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
            f"included) or regions, got {len(weights)}: {weights}",
            fix="correct plans['semi']",
        )
    return weights
