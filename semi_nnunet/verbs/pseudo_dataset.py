"""``semi_nnunet pseudo-dataset``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from semi_nnunet.verbs.options import (
    JOBS,
    MORE,
    ComputeDevice,
    Dataset,
    FilterScore,
    ModelConfiguration,
    ModelFolds,
    ModelPlans,
    Models,
    ModelTrainer,
    NewId,
    Processes,
    RareFlag,
    Seeds,
    Views,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.pseudo_labels.distillation import DistillationResult

logger = logging.getLogger(__name__)


def pseudo_dataset(
    dataset: Dataset,
    new_id: NewId,
    models: Models = (),
    *,
    configuration: ModelConfiguration = None,
    trainer: ModelTrainer = None,
    plans: ModelPlans = None,
    folds: ModelFolds = None,
    views: Views = (),
    keep: Annotated[Sequence[float], option(several=True)] = (1.0,),
    target: Annotated[str | None, option()] = None,
    new_name: Annotated[str | None, option(group=MORE)] = None,
    max_uncertainty: Annotated[float | None, option(group=MORE)] = None,
    score: Annotated[FilterScore, option(group=MORE)] = "entropy",
    before: Annotated[Sequence[str], option(several=True, group=MORE)] = (),
    confidence: Annotated[float, option(group=MORE)] = 0.0,
    complete: RareFlag = False,
    target_plans: Annotated[str | None, option(group=MORE)] = None,
    target_configuration: Annotated[str | None, option(group=MORE)] = None,
    rounds: Annotated[int, option(group=MORE)] = 1,
    target_folds: Annotated[Sequence[str] | None, option(several=True, group=MORE)] = None,
    seeds: Seeds = 1,
    dry_run: RareFlag = False,
    skip_bad: RareFlag = False,
    symlink: RareFlag = False,
    processes: Processes = 2,
    device: ComputeDevice = None,
    jobs: Annotated[int | None, option(group=JOBS)] = None,
) -> DistillationResult:
    """Make a data set of labelled and pseudo-labelled cases for any trainer, and train one on it.

        semi_nnunet pseudo-dataset -d 42 --new-id 142 -m MODEL --views flips gamma
        semi_nnunet pseudo-dataset -d 42 --new-id 142 -m MODEL OTHER --score disagreement --keep 0.5
        semi_nnunet pseudo-dataset -d 42 --new-id 142 -m MODEL --confidence 0.8
        semi_nnunet pseudo-dataset -d 42 --new-id 142 -m MODEL --target SemiBaselineTrainer
        semi_nnunet pseudo-dataset -d 42 --new-id 142 -m MODEL --target nnUNetTrainer --rounds 2

    The models label imagesUn (semi_nnunet pseudo-label): one model with several views is data
    distillation, several models are model distillation. The most certain cases become training
    cases of the new data set, in no validation fold (the folds of the source are kept); the others
    stay unlabelled. Voxels below --confidence get nnU-Net's ignore label.

    With --target, that trainer is then trained with the plans and the configuration of the first
    base or with others (for a cascade both stages), and measured on imagesTs. With --rounds, all
    its folds and seeds label imagesUn again, for a target that starts from scratch: data sets 142,
    143, ... Each round starts from the labels of -d and its whole imagesUn. --score change and
    checkpoints compare with earlier rounds; without --before the first round takes all cases. The
    commands are printed as you could type them. Repeat the command to continue.

    Pseudo labels of a model that was trained on a fold's validation cases make that validation
    optimistic, as do all folds of a target together: compare such trainings on imagesTs.

    Args:
        dataset: The data set with imagesUn.
        new_id: Number of the new data set; later rounds use the following numbers.
        models: Folders of trained models (default: that of -d, selected by -c, -tr, -p and -f).
        configuration: Without -m: such as 3d_fullres (default: the only trained one).
        trainer: Without -m: class name (default: SemiUnifiedTrainer, or the only trained one).
        plans: Without -m: plans identifier (default: nnUNetPlans, or the only trained ones).
        folds: Folds of the model whose logits are averaged (default: every finished fold).
        views: Changed views of each image whose predictions are averaged.
        keep: Fraction of the cases, or a number above 1: the most certain ones; one value, or one
            for each round (ST++: half, then all).
        target: Trainer to train on the new data set (default: none).
        new_name: Name of the new data set (default: the old name and Distilled).
        max_uncertainty: Largest accepted uncertainty (default: any).
        score: Uncertainty score.
        before: Output folders of pseudo-label in which earlier models or checkpoints labelled the
            same images, the oldest first.
        confidence: Voxels whose label is less probable get nnU-Net's ignore label (default: none).
        complete: Also label the classes that labelled cases do not annotate ("annotated" in
            dataset.json); these cases are then in no validation.
        target_plans: Plans of -d or of a base for the new data set (default: the first base's with
            --target; else it is planned again).
        target_configuration: Configuration of the target (default: the first base's).
        rounds: Rounds of labelling and training.
        target_folds: Folds of the target (default: every fold).
        seeds: Number of seeds of the target.
        dry_run: Print the commands.
        skip_bad: Leave bad unlabelled images out.
        symlink: Link to the files instead of copying them.
        processes: Worker processes that check the files.
        device: Where networks compute (default: cuda if there is a GPU).
        jobs: Jobs at a time (default: one for each GPU; 1 on the CPU).

    Returns:
        The new data sets, and the next commands.

    Raises:
        UnfinishedError: labelling failed; the reasons were printed.
        UserError: naming everything that is wrong before anything is done, or what failed.

    Example:
        >>> model = "42/SemiMeanTeacherTrainer__short__2d"
        >>> pseudo_dataset("42", 143, [model], target="SemiBaselineTrainer", dry_run=True).dice
        {}
    """
    from semi_nnunet.pseudo_labels.distillation import Distillation, distil_dataset
    from semi_nnunet.util.command import typed
    from semi_nnunet.workflows.next_step import format_next_lines
    from semi_nnunet.workflows.selection import select_models

    source = None if models else dataset
    models = select_models(models, source, configuration, trainer, plans, folds)

    options = Distillation(
        name=new_name,
        views=views,
        keep=keep,
        most=max_uncertainty,
        score=score,
        before=before,
        complete=complete,
        confidence=confidence,
        target=target,
        target_plans=target_plans,
        target_configuration=target_configuration,
        rounds=rounds,
        folds=target_folds,
        seeds=seeds,
        dry_run=dry_run,
        device=device,
        jobs=jobs,
        processes=processes,
        skip_bad=skip_bad,
        symlink=symlink,
    )
    distilled = distil_dataset(dataset, new_id, models, options)
    for trained, dice in distilled.dice.items():
        logger.info(f"{trained}: Dice of imagesTs {dice:.4f}")
    if distilled.following:
        counts = f"{distilled.labelled} labelled and {distilled.pseudo_labelled} pseudo-labelled"
        lines = [f"{distilled.folders[0]}: {counts} cases"]
        lines.append(format_next_lines(map(typed, distilled.following)))
        logger.info("\n".join(lines))
    return distilled
