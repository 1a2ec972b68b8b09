"""``semi_nnunet tune``."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.verbs.options import (
    ComputeDevice,
    Model,
    ModelConfiguration,
    ModelDataset,
    ModelFolds,
    ModelPlans,
    ModelTrainer,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.deploy.mirrors import MirrorChoice

logger = logging.getLogger(__name__)


def tune(
    model: Model = None,
    *,
    dataset: ModelDataset = None,
    configuration: ModelConfiguration = None,
    trainer: ModelTrainer = None,
    plans: ModelPlans = None,
    folds: ModelFolds = None,
    lose: Annotated[float, option()] = 0.1,
    device: ComputeDevice = None,
) -> MirrorChoice:
    """Find out which mirrored images are worth their time when a model predicts.

        semi_nnunet tune -m Dataset042_Pancreas/MODEL
        semi_nnunet tune -d 42 -c 3d_fullres -f 0 --lose 0.2

    nnU-Net averages over images that are mirrored along all axes: 8 passes of the network in 3-D.
    Here every set of axes predicts the validation cases of each fold. The set with the fewest
    passes is taken whose Dice is at most --lose points below that of all axes. It is written into
    the folder of the model, where semi_nnunet predict and semi_nnunet package find it; predict
    --mirror and --exact use all axes. Fold all has no validation cases and uses what the other
    folds selected.

    Args:
        model: Folder TRAINER__PLANS__CONFIGURATION of a trained model.
        dataset: Without -m: number or name of the data set.
        configuration: Without -m: such as 3d_fullres (default: the only trained one).
        trainer: Without -m: class name (default: SemiUnifiedTrainer, or the only trained one).
        plans: Without -m: plans identifier (default: nnUNetPlans, or the only trained ones).
        folds: Fold numbers (default: all folds of the model).
        lose: Accepted loss of Dice, in points.
        device: Where the network computes (default: cuda if there is a GPU).

    Returns:
        The axes, which are also written into the folder of the model.

    Raises:
        UserError: there is no such model, fold or data set, the training did not mirror, or it has
            no validation case.

    Example:
        >>> tune("42/SemiMeanTeacherTrainer__short__2d", device="cpu").folds
        ('0',)
    """
    from semi_nnunet.inference.tuning import tune_mirror_axes
    from semi_nnunet.util.names import format_count
    from semi_nnunet.workflows.selection import select_model

    name = select_model(model, dataset, configuration, trainer, plans)
    mirrors = tune_mirror_axes(name, folds=folds, lose=lose / 100, device=device)
    axes = " ".join(map(str, mirrors.axes))
    choice = f"axes {axes}" if axes else "nothing"
    logger.info(
        f"mirrored from now on: {choice}, by {format_count(mirrors.cases, 'validation case')}"
    )
    return mirrors
