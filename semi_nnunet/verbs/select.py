"""``semi_nnunet select``."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
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
    RareFlag,
    Views,
    option,
)

if TYPE_CHECKING:
    from semi_nnunet.pseudo_labels.select import Selection

logger = logging.getLogger(__name__)


def select(
    dataset: Dataset,
    models: Models = (),
    *,
    configuration: ModelConfiguration = None,
    trainer: ModelTrainer = None,
    plans: ModelPlans = None,
    folds: ModelFolds = None,
    keep: Annotated[float, option()] = 0.5,
    score: Annotated[FilterScore, option()] = "entropy",
    views: Views = (),
    out: Annotated[Path, option("-o")] = Path("selection.html"),
    undo: RareFlag = False,
    max_uncertainty: Annotated[float | None, option(group=MORE)] = None,
    before: Annotated[Sequence[str], option(several=True, group=MORE)] = (),
    device: ComputeDevice = None,
    jobs: Annotated[int | None, option(group=JOBS)] = None,
) -> Selection | None:
    """Select the unlabelled images to train on, by the certainty of trained models (UIF).

        semi_nnunet select -d 42 -m Dataset042_Pancreas/MODEL --keep 0.5
        semi_nnunet select -d 42 -m MODEL OTHER_MODEL --score disagreement --keep 200
        semi_nnunet select -d 42 -m MODEL --score change --before LABELLED_BEFORE --keep 0.9
        semi_nnunet select -d 42 --undo

    The models label imagesUn (semi_nnunet pseudo-label). The list of the most certain images is
    written where all our trainers read it. A page shows the most certain and least certain images
    and those around the threshold; a table next to it has the score of every case. To filter during
    a training, use the setting filter_epochs instead.

    Scores (0: most certain): entropy of the labels; disagreement of several models; change of the
    labels over rounds (FLARE22's winner) and checkpoints (ST++), which compare with --before.

    Args:
        dataset: The data set with imagesUn.
        models: Folders of trained models (default: that of -d, selected by -c, -tr, -p and -f).
        configuration: Without -m: such as 3d_fullres (default: the only trained one).
        trainer: Without -m: class name (default: SemiUnifiedTrainer, or the only trained one).
        plans: Without -m: plans identifier (default: nnUNetPlans, or the only trained ones).
        folds: Folds of the model whose logits are averaged (default: every finished fold).
        keep: Fraction of the images, or a number above 1.
        score: Uncertainty score.
        views: Changed views of each image whose predictions are averaged.
        out: HTML file of the selection.
        undo: Train on all images again.
        max_uncertainty: Largest accepted uncertainty (default: any).
        before: Output folders of pseudo-label in which earlier models or checkpoints labelled the
            same images, the oldest first.
        device: Where networks compute (default: cuda if there is a GPU).
        jobs: Processes that label (default: one for each GPU; 1 on the CPU).

    Returns:
        The selection; None with ``undo``.

    Raises:
        UnfinishedError: no image could be labelled, or shards failed; the reasons were printed.
        UserError: a model is missing or does not fit, the page cannot be written, or no image is
            left.

    Example:
        >>> select("42", undo=True)  # trainings use all unlabelled images again
    """
    from semi_nnunet.pseudo_labels.choice import SelectionRule
    from semi_nnunet.pseudo_labels.select import select_all, select_images
    from semi_nnunet.runs.launching import JobLauncher
    from semi_nnunet.workflows.selection import select_models

    if undo:
        select_all(dataset)
        logger.info("trainings use all unlabelled images")
        return None
    source = None if models else dataset
    models = select_models(models, source, configuration, trainer, plans, folds)
    selected = select_images(
        dataset,
        models,
        SelectionRule(keep, max_uncertainty, score, tuple(before)),
        views=list(views),
        page=out,
        launcher=JobLauncher(device=device, jobs=jobs),
    )
    logger.info(
        f"{len(selected.kept)} of {selected.total} unlabelled images are selected; see "
        f"{selected.page}, {selected.table}"
    )
    logger.info(
        f"trainings of {selected.dataset} use only these, until "
        f"semi_nnunet select -d {dataset} --undo"
    )
    return selected
