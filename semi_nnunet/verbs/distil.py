"""``semi_nnunet distil``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.verbs.options import (
    MORE,
    Flag,
    Launcher,
    Model,
    ModelConfiguration,
    ModelDataset,
    ModelFolds,
    ModelPlans,
    ModelTrainer,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.workflows.slim import SlimResult

logger = logging.getLogger(__name__)


def distil(
    model: Model = None,
    *,
    dataset: ModelDataset = None,
    configuration: ModelConfiguration = None,
    trainer: ModelTrainer = None,
    plans: ModelPlans = None,
    folds: ModelFolds = None,
    share: Annotated[float, option()] = 0.125,
    seconds: Annotated[float | None, option()] = None,
    plan_only: Flag = False,
    new_plans: Annotated[str | None, option(group=MORE)] = None,
    settings: Annotated[Sequence[str], option("--set", several=True, group=MORE)] = (),
    launcher: Launcher | None = None,
) -> SlimResult:
    """Distil a trained model into a small, fast network for the same images.

        semi_nnunet distil -d 42 -c 3d_fullres -tr SemiUnifiedTrainer
        semi_nnunet distil -m MODEL --seconds 5 -device cpu
        semi_nnunet distil -m MODEL --share 0.05 -f 0 --set epochs=300
        semi_nnunet distil -m MODEL --plan-only

    Compares networks with fewer features and stages by their operations and, on this device, by
    the time for the median image. Takes the largest one with at most --share of the model's
    operations and at most --seconds. Writes plans (nnUNetPlans_slim) in which the model teaches
    that network on labelled and unlabelled images (SemiDistillationTrainer), each fold by the model
    of the same fold. Trains it and compares it with the model on validation cases, or for fold all
    on test cases. Patch and spacing stay; for coarser images, use semi_nnunet pseudo-dataset for
    labels and semi_nnunet plan --spacing. Repeat the command to continue.

    Args:
        model: Folder TRAINER__PLANS__CONFIGURATION of a trained model.
        dataset: Data set with the images and labels to learn from (default: the model's); without
            -m that of the model.
        configuration: Without -m: such as 3d_fullres (default: the only trained one).
        trainer: Without -m: class name (default: SemiUnifiedTrainer, or the only trained one).
        plans: Without -m: plans identifier (default: nnUNetPlans, or the only trained ones).
        folds: Folds to distil (default: all folds of the model).
        share: Largest share of the model's operations.
        seconds: Longest time for the median image on the device (default: any).
        plan_only: Write the plans and train nothing.
        new_plans: Name of the new plans (default: the model's and _slim).
        settings: Settings of the training, as for semi_nnunet plan.
        launcher: Where the trainings run, and the device of --seconds; None: this machine.

    Returns:
        The networks, and the cost of the small one.

    Raises:
        UserError: naming everything that is wrong: there is no such model, fold or data set, the
            model's network is not one of nnU-Net's, no network meets the goal, or a training
            failed.

    Example:
        >>> model = "42/SemiMeanTeacherTrainer__short__2d"
        >>> small = distil(model, share=0.1, plan_only=True).networks
        >>> small.student.operations <= 0.1 * small.teacher.operations
        True
    """
    from semi_nnunet.workflows.selection import select_model
    from semi_nnunet.workflows.slim import SlimResult, choose_slim_network, train_slim_network

    jobs = (launcher or Launcher()).for_jobs()
    source = None if model else dataset
    name = select_model(model, source, configuration, trainer, plans)
    networks = choose_slim_network(
        name, dataset, folds, share, seconds, new_plans, settings, jobs.device
    )
    logger.info(f"{networks}\nwrote {networks.plans}")
    if plan_only:
        return SlimResult(networks)
    slimmed = SlimResult(networks, train_slim_network(networks, folds, jobs))
    if slimmed.conclusion is not None:
        logger.info(slimmed.conclusion)
    return slimmed
